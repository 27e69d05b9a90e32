//! The `quorate-sim-shell` binary: `cargo sim-shell`.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    quorate_sim_shell::cli::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("this binary simulates nothing without --cfg madsim: use cargo sim-shell");
    std::process::ExitCode::from(2)
}
