//! The fuzz targets as ordinary tests: over the stored corpus, and over seeded random inputs near it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use workhall_tests::fuzz::{TARGETS, Target, target};
use workhall_tests::harness::workspace;
use workhall_tests::sim::Rng;

/// How many random inputs each target gets, unless WORKHALL_FUZZ_INPUTS says more.
const INPUTS: u64 = 2_000;
const SEED: u64 = 1;

/// A stored input is no larger, and an input that is made either.
const BYTES_MAX: usize = 64 << 10;

/// Peak memory of the whole test, in KiB: no input makes a decoder take many times its own size.
const PEAK_KIB_MAX: u64 = 512 << 10;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = workspace().join("tests/fuzz/corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_unstable();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Runs one input; says which it was if it shows a fault.
fn run(target: &Target, input: &[u8], which: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let file = std::env::temp_dir().join(format!("workhall-fuzz-{}-{}", target.name, std::process::id()));
        let kept = fs::write(&file, input).is_ok();
        eprintln!("{}: {which} shows a fault; the input is kept in {}: {kept}", target.name, file.display());
        std::panic::resume_unwind(panic);
    }
}

fn corpus_and_random(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(name);
    assert!(corpus.len() >= 10, "the corpus of {name} is missing");
    for (path, input) in &corpus {
        assert!(input.len() <= BYTES_MAX, "{} is too large to be stored", path.display());
        run(target, input, &path.display().to_string());
    }
    let inputs = std::env::var("WORKHALL_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(INPUTS);
    for number in 0..inputs {
        let mut rng = Rng::new(SEED + number);
        let input = vary(&mut rng, &corpus);
        run(target, &input, &format!("random input {number}"));
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    assert!(peak.unwrap_or(u64::MAX) < PEAK_KIB_MAX, "the inputs took {peak:?} KiB");
}

/// A stored input with some changes, or two of them joined, or noise.
fn vary(rng: &mut Rng, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let pick = |rng: &mut Rng| corpus[rng.below(corpus.len() as u64) as usize].1.clone();
    let mut input = match rng.below(10) {
        0 => (0..rng.below(300)).map(|_| rng.bits() as u8).collect(),
        1..=2 => [pick(rng), pick(rng)].concat(),
        _ => pick(rng),
    };
    input.truncate(BYTES_MAX);
    for _ in 0..rng.below(6) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        let any = rng.bits() as u8;
        let byte = rng.pick(&[0, 1, 0x7f, 0x80, 0xff, b'{', b'"', b'\n', any]);
        match rng.below(4) {
            0 => input.insert(at, byte),
            1 => input.truncate(at),
            2 if at < input.len() => drop(input.remove(at)),
            _ if at < input.len() => input[at] = byte,
            _ => input.push(byte),
        }
    }
    input
}

#[test]
fn binary_frames() {
    corpus_and_random("frames");
}

#[test]
fn json_lines() {
    corpus_and_random("lines");
}

#[test]
fn arguments() {
    corpus_and_random("args");
}

#[test]
fn configurations() {
    corpus_and_random("config");
}

#[test]
fn events_of_the_core() {
    corpus_and_random("core");
}

/// What was found once, next to the rule that it broke.
#[test]
fn c09_a_number_of_json_comes_back_as_it_was() {
    target("args")(b"\0[0.1,1e-5,123456789.123456789]");
}

/// Every target has its file for cargo-fuzz, and no file is without a target.
#[test]
fn each_target_is_known_to_cargo_fuzz() {
    let fuzz = workspace().join("tests/fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let files = fs::read_dir(fuzz.join("fuzz_targets")).unwrap();
    let mut stems: Vec<String> =
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().into()).collect();
    stems.sort_unstable();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(stems, names);
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in tests/fuzz/Cargo.toml");
        let text = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("target(\"{name}\")")), "{name}.rs runs another target");
    }
}
