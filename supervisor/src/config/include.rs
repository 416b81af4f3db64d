//! Files that `include` names: classes of their own, so that a package, or a person, adds a worker by adding a file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use toml::Spanned;

use super::file::{ClassFile, File};
use super::{Placed, at};
use crate::diagnostics::printable;
use crate::sys;

/// More files than this are a mistake, like a directory that is somebody else's.
const FILES_MAX: usize = 10_000;

/// The largest file, in bytes. A larger one is no configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A text with classes, and where it stands.
#[derive(Debug)]
pub(super) struct Source {
    /// None for what is in no file.
    pub file: Option<PathBuf>,
    pub text: String,
    /// What its relative paths are relative to.
    pub base: PathBuf,
}

impl Source {
    pub fn new(file: &Path, text: String) -> anyhow::Result<Source> {
        let base = std::path::absolute(file)?.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Source { file: Some(file.to_path_buf()), text, base })
    }

    /// Reads a regular file, and nothing else: the event loop would wait for what others write to a pipe, and a device may
    /// have no end. The error says what cannot be read, and of what is no text the place.
    pub fn read(file: &Path) -> anyhow::Result<Source> {
        let bytes = bytes_of(file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let (until, text) = (error.utf8_error().valid_up_to(), String::from_utf8_lossy(error.as_bytes()));
            let message = at(file, &text, Some(until..until), "this is no UTF-8: a configuration is written in it");
            anyhow::anyhow!("{}", printable(&message))
        })?;
        Source::new(file, text)
    }

    pub fn parse<'de, T: Deserialize<'de>>(&'de self) -> anyhow::Result<T> {
        toml::from_str(&self.text).map_err(|error| self.error(error.span(), &for_people(error.message())))
    }

    /// An error of this text, with its place where it has one.
    pub fn place(&self, error: anyhow::Error) -> anyhow::Error {
        match (error.downcast::<Placed>(), &self.file) {
            (Ok(Placed { span, message }), _) => self.error(Some(span), &message),
            (Err(error), Some(file)) => error.context(file.display().to_string()),
            (Err(error), None) => error,
        }
    }

    fn error(&self, span: Option<std::ops::Range<usize>>, message: &str) -> anyhow::Error {
        let error = match &self.file {
            Some(file) => at(file, &self.text, span, message),
            None => message.to_string(),
        };
        anyhow::anyhow!("{}", printable(&error))
    }
}

fn bytes_of(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What `/proc` calls regular has a size of 0: so it is counted while it is read.
    sys::open_regular(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(std::io::Error::other(format!("it has more than {} MiB: split it", FILE_BYTES_MAX >> 20))),
        false => Ok(bytes),
    }
}

/// What the parser says, in words for people.
fn for_people(message: &str) -> String {
    const WORDS: [(&str, &str); 4] = [
        ("expected u64", "expected a whole number, not below 0"),
        ("expected i32", "expected a whole number"),
        ("expected a sequence", "expected a list, like [\"a\", \"b\"]"),
        ("expected a map", "expected a table"),
    ];
    let number = message.strip_prefix("invalid type: integer `").and_then(|rest| rest.split_once("` as "));
    if let Some((number, _)) = number {
        return format!("{number} is out of range: whole numbers go from {} to {}", i64::MIN, i64::MAX);
    }
    let words = WORDS.iter().find_map(|(said, meant)| Some(message.strip_suffix(said)?.to_string() + meant));
    words.unwrap_or_else(|| message.to_string())
}

/// What stands in an included file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Included {
    #[serde(default)]
    class: BTreeMap<Spanned<String>, ClassFile>,
}

/// Reads what the main text includes, in the order of the names, if it was not `read` before, and adds its classes to those of
/// `file`. Returns all texts, the main one first, and in which of them each class stands that is not in the main one.
pub(super) fn include(
    main: Source,
    read: Option<Vec<Source>>,
    file: &mut File,
) -> anyhow::Result<(Vec<Source>, BTreeMap<String, usize>)> {
    let more = match (read, &file.supervisor.include) {
        (Some(read), _) => read,
        (None, None) => Vec::new(),
        (None, Some(pattern)) => {
            let paths = files(&main.base, pattern.get_ref())
                .map_err(|message| main.place(Placed::at(pattern, format!("`include`: {message}"))))?;
            paths.iter().map(|path| Source::read(path)).collect::<anyhow::Result<_>>()?
        }
    };
    let (mut sources, mut from) = (vec![main], BTreeMap::new());
    for source in more {
        let included: Included = source.parse()?;
        for (name, class) in included.class {
            if file.class.contains_key(&name) {
                let name_of = |source: &Source| source.file.clone().unwrap_or_default().display().to_string();
                let other = name_of(&sources[from.get(name.get_ref()).copied().unwrap_or(0)]);
                let message = format!("class `{}` is in {other}, too: leave it in one of them", name.get_ref());
                return Err(source.place(Placed::at(&name, message)));
            }
            from.insert(name.get_ref().clone(), sources.len());
            file.class.insert(name, class);
        }
        sources.push(source);
    }
    Ok((sources, from))
}

/// The files of a directory whose names match, sorted.
fn files(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = if pattern.is_empty() || pattern.ends_with('/') { PathBuf::new() } else { base.join(pattern) };
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Err(format!("`{pattern}` names no files: write it like \"workers.d/*.toml\""));
    };
    let glob = GlobBuilder::new(name).literal_separator(true).build();
    let glob: GlobMatcher =
        glob.map_err(|error| format!("{error}: write it like \"workers.d/*.toml\""))?.compile_matcher();
    let cannot = |error: std::io::Error| match pattern.rsplit_once('/') {
        Some((dir, _)) if dir.contains(['*', '?', '[', '{']) && error.kind() == std::io::ErrorKind::NotFound => {
            format!(
                "there is no directory `{dir}`: only the name of the file may have wildcards, as in \"workers.d/*.toml\""
            )
        }
        _ => format!("cannot read the directory {}: {error}: make it", dir.display()),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let file_name = entry.file_name();
        // What begins with a dot was hidden by somebody, like an editor.
        let hidden = file_name.as_encoded_bytes().starts_with(b".") && !name.starts_with('.');
        if !hidden && glob.is_match(&file_name) && !entry.path().is_dir() {
            found.push(entry.path());
        }
        if found.len() > FILES_MAX {
            return Err(format!("{} has more than {FILES_MAX} files that match `{name}`", dir.display()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
