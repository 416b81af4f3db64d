//! Workers that are started with the supervisor (rule W5).

use std::sync::Arc;

use workhall_protocol::ids::WorkerName;

use super::patterns::is_exact;
use super::words::Start;
use super::{Class, ClassFile, Config};

impl ClassFile {
    /// The names of its workers that are started at boot: those of `names` without wildcards, or the name of the class.
    pub(super) fn boot(&self, class: &str) -> anyhow::Result<Vec<WorkerName>> {
        if self.start == Start::Call {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = match &self.names {
            None => vec![class],
            Some(names) => names.iter().map(|name| name.get_ref().as_str()).filter(|name| is_exact(name)).collect(),
        };
        anyhow::ensure!(
            !names.is_empty(),
            "class `{class}`: start = \"boot\" starts the workers that `names` has without wildcards, and it has none"
        );
        names.into_iter().map(|name| Ok(WorkerName::new(name)?)).collect()
    }
}

impl Config {
    /// The workers that are started at boot, and kept running, with the class of each. The main worker is none of them.
    pub fn boot(&self) -> impl Iterator<Item = (WorkerName, &Arc<Class>)> {
        let all = self.classes.iter().flat_map(|class| class.boot.iter().map(move |name| (name, class)));
        let own = |name: &WorkerName, class: &Class| {
            self.class_by_pattern(name).is_some_and(|found| found.policy.class == class.policy.class)
        };
        let is_main = |name: &WorkerName| self.classes.iter().any(|class| class.main && *class.policy.class == **name);
        all.filter(move |(name, class)| own(name, class) && !is_main(name)).map(|(name, class)| (name.clone(), class))
    }

    /// What a person may want to know of them.
    pub(super) fn boot_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for class in self.classes.iter().filter(|class| !class.boot.is_empty()) {
            let name = &class.policy.class;
            if class.policy.idle_timeout.is_some() {
                warnings
                    .push(format!("class `{name}`: `idle_timeout` does nothing to what is started at boot (`start`)"));
            }
            for worker in &class.boot {
                let other = self.class_by_pattern(worker).map(|found| &found.policy.class);
                if let Some(other) = other.filter(|other| *other != name) {
                    warnings.push(format!(
                        "class `{name}`: `{worker}` is not started at boot (`start`), because it is of class `{other}`"
                    ));
                }
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> anyhow::Result<Config> {
        Config::parse(text, Path::new("/w.toml"))
    }

    fn boot(config: &Config) -> Vec<(String, String)> {
        config.boot().map(|(name, class)| (name.to_string(), class.policy.class.to_string())).collect()
    }

    #[test]
    fn w05_names_without_wildcards_are_started_at_boot_or_the_name_of_the_class() {
        let config = config(
            "class.a = { exec = ['/a'], start = 'boot' }\n\
             class.b = { exec = ['/b'], start = 'boot', names = ['x', 'y/1', 'z-*'] }\n\
             class.c = { exec = ['/c'], start = 'call' }\n\
             class.m = { exec = ['/m'], main = true, start = 'boot' }",
        );
        let expected = [("a", "a"), ("x", "b"), ("y/1", "b")].map(|(name, class)| (name.into(), class.into()));
        assert_eq!(boot(&config.unwrap()), expected, "the main worker is no other");
    }

    #[test]
    fn w05_a_class_of_wildcards_alone_has_nothing_to_start_at_boot() {
        let error =
            format!("{:#}", config("class.b = { exec = ['/b'], start = 'boot', names = ['z-*'] }").unwrap_err());
        assert!(error.contains("w.toml:1:7") && error.contains("without wildcards"), "{error}");
        let error = format!("{:#}", config("class.b = { exec = ['/b'], start = 'soon' }").unwrap_err());
        assert!(error.contains("soon") && error.contains("boot"), "{error}");
        let error = format!("{:#}", config("class.b = { attach = {}, start = 'boot' }").unwrap_err());
        assert!(error.contains("`exec` is missing"), "{error}");
    }

    #[test]
    fn w05_what_another_class_has_is_said_and_not_started() {
        let text = "class.a = { exec = ['/a'], start = 'boot', idle_timeout = '1m' }\nclass.b = { exec = ['/b'], names = ['a'] }";
        let config = config(text).unwrap();
        assert!(boot(&config).is_empty());
        let warnings = config.warnings().join("\n");
        for part in ["`a` is not started at boot", "of class `b`", "`idle_timeout` does nothing"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
    }

    #[test]
    fn p02_a_class_whose_workers_attach_needs_no_program() {
        let config = config("class.dev = { attach = { users = [7] } }").unwrap();
        let class = config.class_of("dev/1").unwrap();
        assert_eq!((class.exec.len(), class.attach.as_ref().unwrap().users.as_slice()), (0, &[7][..]));
        assert!(config.class_to_run("dev").unwrap_err().detail.contains("has no program"));
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    }
}
