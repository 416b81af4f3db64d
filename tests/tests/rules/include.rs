//! Classes in files of their own: which files are read, whose each class is, and what is said of a mistake in them.

use std::fs;
use std::path::PathBuf;

use workhall_tests::harness::{ANY_NAME, Output, Supervisor, bin_dir, text, until};

/// A supervisor that runs the command line, and the configuration that is written anew for each question.
struct Files {
    supervisor: Supervisor,
    main: PathBuf,
}

impl Files {
    fn new() -> Files {
        let supervisor = Supervisor::with_config(ANY_NAME);
        fs::create_dir(supervisor.path("workers.d")).unwrap();
        let main = supervisor.path("main.toml");
        Files { supervisor, main }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let content = content.replace("{bin}", bin_dir().to_str().unwrap());
        self.supervisor.file(&format!("workers.d/{name}"), &content)
    }

    fn check(&self, main: &str) -> Output {
        fs::write(&self.main, main).unwrap();
        self.supervisor.cli(&["check", text(&self.main), "--json"])
    }

    /// A mistake in a file: its place, what is wrong, and the line.
    #[track_caller]
    fn fails(&self, main: &str, place: &str) -> Output {
        let output = self.check(main);
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.err.starts_with("workhall: ") && output.err.contains(place), "no `{place}`: {output:?}");
        output
    }
}

const INCLUDE: &str = "[supervisor]\ninclude = 'workers.d/*.toml'\n";

#[test]
fn w09_each_file_of_the_directory_adds_its_classes() {
    let files = Files::new();
    files.check(INCLUDE).ok();
    files.write("b.toml", "[class.b]\nexec = ['{bin}/test-worker']\n");
    files.write("a.toml", "[class.a]\nexec = ['true']\n[class.aa]\nexec = ['true']\n");
    // What editors and package managers leave, and directories, are no files of classes.
    for name in ["a.toml~", ".a.toml", "a.toml.dpkg-old", "README"] {
        files.write(name, "this is none");
    }
    fs::create_dir(files.supervisor.path("workers.d/dir.toml")).unwrap();
    let all = files.check(&format!("{INCLUDE}[class.own]\nexec = ['true']\n")).ok().json();
    assert_eq!(all["classes"], serde_json::json!(["a", "aa", "b", "own"]));
    // A link counts as what it leads to.
    std::os::unix::fs::symlink("README", files.supervisor.path("workers.d/link.toml")).unwrap();
    files.fails(INCLUDE, "link.toml:1:");
}

#[test]
fn a_mistake_is_said_with_its_file_line_and_column() {
    let files = Files::new();
    for (content, place, part) in [
        ("[class.a]\nexce = ['x']\n", "a.toml:2:1:", "exce"),
        ("[class.a]\nexec = 'x'\n", "a.toml:2:8:", "invalid type"),
        ("[class.a]\nexec = ['x']\nattempts = 3\n", "a.toml:3:12:", "on_crash"),
        ("[class.a]\nexec = ['x']\nnames = ['[']\n", "a.toml:3:10:", "pattern"),
        ("[class.a]\n", "a.toml", "`exec` is missing"),
        ("[supervisor]\nsocket = 'x'\n", "a.toml:1:2:", "supervisor"),
        ("[class", "a.toml:1:7:", ""),
    ] {
        files.write("a.toml", content);
        let failed = files.fails(INCLUDE, &format!("workers.d/{place}"));
        assert!(failed.err.contains(part), "{failed:?}");
    }
    fs::write(files.supervisor.path("workers.d/a.toml"), b"[class.a]\nexec = ['x']\n# caf\xe9\n").unwrap();
    files.fails(INCLUDE, "workers.d/a.toml:3:6: this is no UTF-8").fails(2, &["# caf\u{fffd}"]);
    fs::remove_file(files.supervisor.path("workers.d/a.toml")).unwrap();
    // What is wrong in the main file is said of that one.
    for (include, part) in
        [("'nowhere/*.toml'", "cannot read the directory"), ("'..'", "names no files"), ("'w/[.toml'", "write it like")]
    {
        let failed = files.fails(&format!("[supervisor]\ninclude = {include}\n"), "main.toml:2:11:");
        assert!(failed.err.contains(part), "{failed:?}");
    }
}

#[test]
fn a_class_that_is_there_twice_names_both_files() {
    let files = Files::new();
    let (a, b) = (
        files.write("a.toml", "[class.x]\nexec = ['true']\n"),
        files.write("b.toml", "\n[class.x]\nexec = ['true']\n"),
    );
    let failed = files.fails(INCLUDE, &format!("{}:2:8: class `x` is in {}, too", b.display(), a.display()));
    assert!(failed.err.contains("leave it in one of them"), "{failed:?}");
    fs::remove_file(b).unwrap();
    let failed = files.fails(&format!("{INCLUDE}[class.x]\nexec = ['true']\n"), "workers.d/a.toml:1:8:");
    assert!(failed.err.contains("main.toml, too"), "{failed:?}");
    // The same of two files that claim the same names.
    files.write("b.toml", "[class.y]\nexec = ['true']\nnames = ['n*']\n");
    files.write("c.toml", "[class.z]\nexec = ['true']\nnames = ['n*']\n");
    let failed = files.fails(INCLUDE, "workers.d/c.toml:3:10:");
    assert!(failed.err.contains("classes `y` and `z` both match `n*`"), "{failed:?}");
}

#[test]
fn a_supervisor_serves_what_is_included_and_may_wait_for_its_first_class() {
    let mut empty = None;
    let config = "[supervisor]\ninclude = '{dir}/workers.d/*.toml'\n";
    let mut supervisor = Supervisor::with_config_under(config, |dir| {
        fs::create_dir(dir.join("workers.d")).unwrap();
        empty = Some(dir.to_path_buf());
        vec!["env".into()]
    });
    assert!(supervisor.log().contains("warning: there are no classes yet"), "{}", supervisor.log());
    supervisor.cli(&["call", "a", "count"]).fails(3, &["no_class", "has no classes"]);
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.ended();
    // Paths in a file are relative to that file.
    std::os::unix::fs::symlink(bin_dir().join("test-worker"), supervisor.path("workers.d/program")).unwrap();
    supervisor.file("workers.d/a.toml", "[class.a]\nexec = ['./program']\ndirectory = '.'\n");
    supervisor.restart();
    assert_eq!(supervisor.call(&["a", "count"]), 1);
    let directory = fs::read_link(format!("/proc/{}/cwd", supervisor.worker_pid("a"))).unwrap();
    assert_eq!(directory, empty.unwrap().join("workers.d"));
}

#[test]
fn what_is_no_regular_file_is_refused_and_nobody_waits_for_it() {
    const MAIN: &str = "[supervisor]\ninclude = '{dir}/workers.d/*.toml'\n";
    let supervisor = Supervisor::with_config_under(&format!("{ANY_NAME}{MAIN}"), |dir| {
        fs::create_dir(dir.join("workers.d")).unwrap();
        vec!["env".into()]
    });
    let odd = supervisor.path("workers.d/x.toml");
    let large = supervisor.path("large");
    fs::File::create(&large).unwrap().set_len((16 << 20) + 1).unwrap();
    let fifo = || nix::unistd::mkfifo(&odd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = |to: &str| std::os::unix::fs::symlink(to, &odd).unwrap();
    let make: [(&dyn Fn(), &str); 4] = [
        (&fifo, "it is a pipe, not a regular file"),
        (&|| link("/dev/zero"), "it is a device, not a regular file"),
        (&|| link(text(&large)), "it has more than 16 MiB: split it"),
        (&|| link(text(supervisor.socket())), "it is a socket, not a regular file"),
    ];
    let main = supervisor.path("workhall.toml");
    let log = |supervisor: &Supervisor| supervisor.log();
    for (make, part) in make {
        make();
        let said = format!("cannot read {}: {part}", odd.display());
        let lines = log(&supervisor).lines().count();
        supervisor.signal(nix::sys::signal::Signal::SIGHUP);
        until("the reload is refused", || log(&supervisor).lines().count() > lines);
        let line = format!("error: the configuration is what it was: {said}");
        assert!(log(&supervisor).lines().last().unwrap().ends_with(&line), "{}", log(&supervisor));
        supervisor.call(&["a", "count"]);
        // As an included file, and as the file itself, of those who start with it and who only look.
        for (arguments, said) in [
            (vec!["check", text(&main)], said.clone()),
            (vec!["check", text(&odd)], said.clone()),
            (vec!["serve", "--config", text(&odd)], said),
        ] {
            let mut refused = supervisor.start_cli(&arguments);
            until("it has ended", || refused.has_ended());
            refused.end().fails(2, &[&said]);
        }
        fs::remove_file(&odd).unwrap();
    }
    supervisor.cli(&["reload"]).ok();
}
