//! What people may want to know of a configuration that is correct.

use std::sync::Arc;

use super::{Class, Config, MetricsAt, Settings, is_executable};

impl Config {
    /// What a person may want to know although the file is correct.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.classes.is_empty() && self.workers_dir.is_none() {
            warnings.push(
                "there are no classes yet: every call is refused until a file that `include` names has one".into(),
            );
        }
        for class in &self.classes {
            if let Some(dir) = class.directory.as_ref().filter(|dir| !dir.is_dir()) {
                warnings.push(format!("class `{}`: there is no directory {}", class.policy.class, dir.display()));
            }
            if let Some(program) = class.exec.first()
                && !class.program().is_some_and(|program| is_executable(&program))
            {
                let name = &class.policy.class;
                warnings.push(format!("class `{name}`: there is no executable `{program}`"));
            }
            warnings.extend(self.shadowed_program(class));
            warnings.extend(self.hidden_name(class));
            if class.main && class.policy.idle_timeout.is_some() {
                let name = &class.policy.class;
                warnings.push(format!("class `{name}`: `idle_timeout` does nothing to its `main` worker `{name}`"));
            }
        }
        warnings.extend(self.boot_warnings());
        if let Some(MetricsAt::Path(path)) = &self.metrics
            && let Some(dir) = path.parent().filter(|dir| !dir.is_dir())
        {
            warnings.push(format!("`metrics` in [supervisor]: there is no directory {}", dir.display()));
        }
        warnings
    }

    /// The sentence about the worker of a class's own name, if another class has more specific `names` for it.
    fn hidden_name(&self, class: &Class) -> Option<String> {
        let name = &*class.policy.class;
        self.patterns
            .iter()
            .find(|pattern| pattern.class.policy.class == class.policy.class && pattern.glob().is_none())?;
        let pattern = self.patterns.iter().find(|pattern| pattern.matches(name))?;
        let other = &*pattern.class.policy.class;
        let names = format!("class `{other}`, whose `names` have `{}`", pattern.text);
        match (other != name, class.main) {
            (false, _) => None,
            (true, false) => {
                Some(format!("class `{name}` serves only what is below `{name}/`: the worker `{name}` is of {names}"))
            }
            (true, true) => Some(format!("class `{name}`: who may call its `main` worker `{name}` is said by {names}")),
        }
    }

    /// The sentence about a program of the workers directory that no name reaches, because a class of the
    /// file has its name. None if the class runs that very program for its own name.
    fn shadowed_program(&self, class: &Class) -> Option<String> {
        let name = &*class.policy.class;
        let program = self.workers_dir.as_ref()?.join(name);
        let same = || Some(class.program()?.canonicalize().ok()? == program.canonicalize().ok()?);
        let serves_itself = self.class_of(name).is_ok_and(|found| found.policy.class == class.policy.class);
        (is_executable(&program) && !(serves_itself && same() == Some(true))).then(|| {
            format!(
                "class `{name}` has the name of {}, which therefore serves no worker: rename one of them",
                program.display()
            )
        })
    }

    /// What classes set that is not enforced where `why_not` gives a reason for its controller.
    pub fn not_enforced(&self, why_not: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let of = |class: &Arc<Class>| {
            let name = class.policy.class.clone();
            let sentences: Vec<String> = class.settings.not_enforced(&why_not).collect();
            sentences.into_iter().map(move |sentence| format!("class `{name}`: {sentence}"))
        };
        self.classes.iter().flat_map(of).collect()
    }
}

impl Settings {
    /// Which of them are not enforced where `why_not` gives a reason for their controller, one sentence each.
    pub fn not_enforced(&self, why_not: impl Fn(&str) -> Option<String>) -> impl Iterator<Item = String> {
        let limits = [("memory", self.memory, "memory"), ("processes", self.processes, "pids")];
        limits.into_iter().filter_map(move |(key, set, controller)| {
            set?;
            Some(format!("`{key}` is not enforced: {}", why_not(controller)?))
        })
    }
}
