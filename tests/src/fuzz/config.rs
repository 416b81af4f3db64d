//! The configuration, as `serve` reads it: any text is a configuration that can be worked with, or an error
//! that names the file.

use std::path::Path;

use workhall::config::Config;

/// Where the text is said to come from; relative paths in it lead nowhere.
const FILE: &str = "/nowhere/w.toml";

/// Names that are looked up beside those that the text has.
const NAMES: [&str; 5] = ["a", "thumb-1", "ledger/eu", "$/*", "é"];

/// The bytes of a file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::parse(text, Path::new(FILE)) {
        Ok(config) => config,
        Err(error) => {
            let shown = format!("{error:#}");
            // What is wrong in a file that it includes is said of that file.
            assert!(shown.contains(FILE) || text.contains("include"), "{shown}");
            return;
        }
    };
    let limits = &config.limits;
    assert!(limits.message_bytes > 0 && limits.total_bytes > 0 && limits.workers > 0 && config.connections > 0);
    assert!(config.classes().iter().filter(|class| class.main).count() <= 1);
    for class in config.classes() {
        let policy = &class.policy;
        assert!(policy.mailbox_messages > 0 && policy.mailbox_bytes > 0 && !policy.start_timeout.is_zero());
        assert!(policy.startup_method.as_deref().is_none_or(|method| !method.is_empty()));
        assert!(!class.exec[0].is_empty() && class.exec.iter().all(|word| !word.contains('\0')));
        assert!(config.class(&policy.class).is_some());
    }
    let words = text.split(|c: char| c.is_whitespace() || "'\"[]=,".contains(c)).filter(|word| !word.is_empty());
    for name in NAMES.into_iter().chain(words.take(100)) {
        match config.class_of(name) {
            Ok(class) => assert!(!class.exec.is_empty()),
            Err(refused) => assert!(refused.detail.contains(name), "{}", refused.detail),
        }
    }
    let _for_people = config.warnings();
}
