//! Small configurations, completely.

use std::time::Instant;

use workhall_tests::enumerate::{SMALL, Settings, enumerate};

#[test]
fn small_worlds() {
    for config in SMALL {
        let began = Instant::now();
        let count = enumerate(config, Settings { prove_key: 37, ..Settings::default() }).unwrap_or_else(|violation| panic!("{violation}"));
        println!("{}: {count:?} {:?}", config.name, began.elapsed());
    }
}
