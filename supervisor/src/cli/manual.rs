//! `workhall man`: the manual pages, from the same source as `--help`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;

use super::{ExitCode, Failure};

/// What `--help` of the whole has no place for.
const MORE: &str = r".SH EXIT STATUS
.TP
0
done, or ignored by the rules
.TP
1
the method failed, or an unexpected error
.TP
2
wrong usage, or a mistake in the configuration
.TP
3
refused; the reason is on stderr
.TP
4
no supervisor answers at that socket
.TP
5
the time ran out
.TP
6
the message will not be executed, or its process died
.SH ENVIRONMENT
.TP
WORKHALL_SOCKET
the supervisor's socket, unless \-\-socket says where; empty is unset
.TP
XDG_RUNTIME_DIR
without either, the socket is workhall/workhall.sock in there, else /run/workhall/workhall.sock
.TP
NO_COLOR
no colours, also on a terminal
.SH FILES
.TP
/etc/workhall/workhall.toml
the configuration
.TP
/etc/workhall/workers.d/
one file per class, where the configuration includes them
.TP
/usr/share/doc/workhall/
how to operate it, and every key of the configuration
";

/// The arguments of `workhall man`.
#[derive(Debug, clap::Args)]
pub struct Manual {
    /// Where the pages are written; it is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Manual {
    /// Writes a page for each command.
    pub fn run(self, command: Command) -> Result<ExitCode, Failure> {
        std::fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make the directory {}", self.dir.display()))?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write(&self.dir, &command, "workhall", MORE)?;
        Ok(ExitCode::Done)
    }
}

/// clap calls what stands behind the help EXTRA, and fills its lines.
fn with_examples(page: &str) -> String {
    let Some((before, extra)) = page.split_once(".SH EXTRA\n") else { return page.to_string() };
    let (examples, after) = extra.split_at(extra.find("\n.SH ").map_or(extra.len(), |at| at + 1));
    let (_title, examples) = examples.split_once('\n').unwrap_or(("", examples));
    format!("{before}.SH EXAMPLES\n.nf\n{examples}.fi\n{after}")
}

/// The page of a command, and those of the commands below it.
fn write(dir: &Path, command: &Command, name: &str, more: &str) -> Result<(), Failure> {
    let mut page = Vec::new();
    let title = Man::new(command.clone().display_name(name)).title(name.to_uppercase()).manual("Workhall");
    title.render(&mut page)?;
    let page = with_examples(&String::from_utf8_lossy(&page)) + more;
    let file = dir.join(format!("{name}.1"));
    std::fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(dir, below, &format!("{name}-{}", below.get_name()), "")?;
    }
    Ok(())
}
