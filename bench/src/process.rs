//! One server as a process of this machine, with a file for what it prints, and everything that may happen to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A server that can be started again and again with the same arguments.
pub(crate) struct Process {
    /// The program and what comes before the server's own arguments.
    command: Vec<String>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Not yet started. `command` is the server's binary, perhaps after a command that runs it elsewhere.
    pub(crate) fn new(command: Vec<String>, arguments: Vec<String>, log: PathBuf) -> Self {
        assert!(!command.is_empty(), "a process has a program");
        Self {
            command,
            arguments,
            log,
            child: None,
        }
    }

    /// What it is started with from now on.
    pub(crate) fn set_arguments(&mut self, arguments: Vec<String>) {
        self.arguments = arguments;
    }

    pub(crate) fn start(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "it is started once at a time");
        let fail = |error: std::io::Error| format!("{}: {error}", self.command.join(" "));
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(fail)?;
        let errors = log.try_clone().map_err(fail)?;
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.child = Some(command.spawn().map_err(fail)?);
        Ok(())
    }

    /// The process's number, if it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal, such as `-TERM`, `-STOP` or `-CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status();
        }
    }

    /// How it ended, if it was started and has ended by itself or by a signal.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// The last lines that it has printed.
    pub(crate) fn last_lines(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
