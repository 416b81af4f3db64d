//! `workhall`: the supervisor and its command line, in one binary.

fn main() -> std::process::ExitCode {
    workhall::main()
}
