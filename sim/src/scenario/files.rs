//! Scenario files: one by its path or name, all of a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Scenario, ScenarioError};

/// Where scenarios are when only their names are given.
const DIRECTORY: &str = "scenarios";

/// Reads the scenarios of a path: a file, all files of a directory in the order of their names, or the name of a file
/// in `scenarios/`.
pub fn find(path: &str) -> Result<Vec<Scenario>, ScenarioError> {
    let as_path = Path::new(path);
    if as_path.is_dir() {
        let files =
            files_in(as_path).map_err(|error| ScenarioError::of_file(path, error.to_string()))?;
        if files.is_empty() {
            return Err(ScenarioError::of_file(
                path,
                "found no *.toml, expected scenarios",
            ));
        }
        return files.iter().map(|file| read(file)).collect();
    }
    let by_name = PathBuf::from(DIRECTORY).join(format!("{path}.toml"));
    if !as_path.exists() && by_name.exists() {
        return Ok(vec![read(&by_name)?]);
    }
    Ok(vec![read(as_path)?])
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Scenario, ScenarioError> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| ScenarioError::of_file(&file, error.to_string()))?;
    let scenario = Scenario::parse(&file, &text)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    if stem != scenario.name {
        let name = &scenario.name;
        return Err(ScenarioError::of_file(
            &file,
            format!("found the name \"{name}\", expected \"{stem}\" as the file is called"),
        ));
    }
    Ok(scenario)
}

fn files_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let is_scenario = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut files: Vec<_> = paths.filter(is_scenario).collect();
    files.sort();
    Ok(files)
}
