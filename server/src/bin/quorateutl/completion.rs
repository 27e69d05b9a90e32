//! `completion`: scripts that complete commands and flags in a shell. They are made from the tree of commands.

use crate::command_line::{Arguments, Command};
use crate::{Failure, GLOBAL, NAME, ROOT, output};

pub(crate) const SHELLS: &[&str] = &["bash", "zsh", "fish", "powershell"];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    output::write(&match arguments.positional[0].as_str() {
        "bash" => bash(),
        "zsh" => format!(
            "#compdef {NAME}\n\nautoload -U +X bashcompinit && bashcompinit\n{}",
            bash()
        ),
        "fish" => fish(),
        _ => powershell(),
    });
    Ok(())
}

/// The words that may follow a command: its commands, or its flags.
fn words(command: &Command) -> String {
    let commands = command.commands.iter().map(|inner| inner.name.to_owned());
    let flags = command.flags.iter().chain(GLOBAL);
    let flags = flags.map(|flag| format!("--{}", flag.name));
    let all: Vec<String> = commands.chain(flags).chain(["--help".to_owned()]).collect();
    all.join(" ")
}

/// Each command with what leads to it.
fn all_commands() -> Vec<(String, &'static Command)> {
    static TREE: Command = ROOT;
    let mut found = vec![(String::new(), &TREE)];
    let mut next = 0;
    while let Some((path, command)) = found.get(next).cloned() {
        found.extend(command.commands.iter().map(|inner| {
            let path = format!("{path} {}", inner.name);
            (path.trim_start().to_owned(), inner)
        }));
        next += 1;
    }
    found
}

fn bash() -> String {
    let cases: String = all_commands()
        .iter()
        .map(|(path, command)| format!("        {path:?}) words={:?} ;;\n", words(command)))
        .collect();
    format!(
        r#"# bash completion for {NAME}

_{NAME}() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" words="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in -*) ;; *) path="${{path:+$path }}$word" ;; esac
    done
    case "$path" in
{cases}    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [ -n "$COMPREPLY" ] || COMPREPLY=($(compgen -f -- "$current"))
}}

complete -F _{NAME} {NAME}
"#
    )
}

fn fish() -> String {
    let mut text = format!("# fish completion for {NAME}\n\n");
    for (path, command) in all_commands() {
        let condition = if path.is_empty() {
            "__fish_use_subcommand".to_owned()
        } else {
            let seen: Vec<String> = path
                .split(' ')
                .map(|word| format!("__fish_seen_subcommand_from {word}"))
                .collect();
            seen.join("; and ")
        };
        for inner in command.commands {
            text += &format!(
                "complete -c {NAME} -f -n '{condition}' -a {} -d '{}'\n",
                inner.name, inner.about
            );
        }
        for flag in command.flags {
            text += &format!("complete -c {NAME} -n '{condition}' -l {}\n", flag.name);
        }
    }
    for flag in GLOBAL {
        text += &format!("complete -c {NAME} -l {}\n", flag.name);
    }
    text
}

fn powershell() -> String {
    let cases: String = all_commands()
        .iter()
        .map(|(path, command)| format!("        '{path}' {{ '{}' }}\n", words(command)))
        .collect();
    format!(
        r#"# powershell completion for {NAME}

Register-ArgumentCompleter -Native -CommandName {NAME} -ScriptBlock {{
    param($current, $line, $position)
    $path = ($line.CommandElements | Select-Object -Skip 1 | ForEach-Object {{ $_.ToString() }} |
        Where-Object {{ -not $_.StartsWith('-') -and $_ -ne $current }}) -join ' '
    $words = switch ($path) {{
{cases}    }}
    ($words -split ' ') | Where-Object {{ $_ -like "$current*" }}
}}
"#
    )
}
