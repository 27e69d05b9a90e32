//! Passwords that are not on the command line.

use std::io::BufRead;

use crate::failure::{Exit, Failure};

/// A new password for a user: asked for twice on the terminal, or the first word of stdin.
pub(crate) fn new_of(user: &str, interactive: bool) -> Result<String, Failure> {
    if !interactive {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        return Ok(line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_string());
    }
    let password = ask(&format!("Password of {user}: ")).map_err(Failure::arguments)?;
    if password.is_empty() {
        return Err(Failure::arguments("empty password"));
    }
    let again = ask(&format!("Type password of {user} again for confirmation: "));
    if again.map_err(Failure::arguments)? != password {
        return Err(Failure::arguments("given passwords are different"));
    }
    Ok(password)
}

/// The password of the user that the command is to be carried out as.
pub(crate) fn of_caller() -> Result<String, Failure> {
    ask("Password: ").map_err(|message| Failure::new(Exit::General, message))
}

fn ask(prompt: &str) -> Result<String, String> {
    rpassword::prompt_password(prompt).map_err(|error| format!("failed to ask password: {error}"))
}
