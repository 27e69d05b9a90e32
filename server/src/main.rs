//! The `quorate` binary: arguments in, a running member or an exit code out.

use std::process::ExitCode;

use quorate_server::config::{self, Outcome, Refusal};
use quorate_server::log::{self, lines};
use quorate_server::{proxy, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of a misused command line.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    // A thread that has panicked leaves a member that only looks alive: the whole process ends instead.
    std::panic::set_hook(Box::new(|panic| {
        lines::fatal("panic", panic);
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }));
    let arguments: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    if let Some(ended) = proxy::run(&arguments) {
        return ended;
    }
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match config::parse(&arguments[1..], &environment) {
        Outcome::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Outcome::Misused(text) => {
            eprint!("{text}");
            ExitCode::from(MISUSED)
        }
        Outcome::Refused(refusal) => refuse(&refusal, &arguments),
        Outcome::Run(config) => serve(&config, &arguments),
    }
}

fn refuse(refusal: &Refusal, arguments: &[String]) -> ExitCode {
    // A log that cannot be had is no reason to hide the other one.
    let _ = log::init(&config::LogConfig::default());
    lines::refused(refusal, arguments);
    ExitCode::FAILURE
}

fn serve(config: &config::Config, arguments: &[String]) -> ExitCode {
    if let Err(error) = log::init(&config.log) {
        let notices = config.notices.clone();
        return refuse(
            &Refusal {
                error,
                shadowed_variable: None,
                notices,
            },
            arguments,
        );
    }
    lines::running(arguments);
    lines::notices(&config.notices);
    match run::run(config, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lines::fatal("cannot start", &error);
            ExitCode::FAILURE
        }
    }
}
