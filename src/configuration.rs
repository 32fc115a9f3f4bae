//! Where state and settings are: flag before variable before file before default. Flags and variables are read by
//! clap; the sections of the file belong to the roles.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// The configuration file. Unknown sections and keys are errors that name the line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigurationFile {
    pub(crate) coordinator: gristmill_coordinator::settings::FileSection,
    pub(crate) node: gristmill_node::settings::FileSection,
    pub(crate) client: gristmill_client::settings::FileSection,
}

/// What every role is given.
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) file: ConfigurationFile,
    pub(crate) data_dir: PathBuf,
}

/// Why the program does not know its settings.
#[derive(Debug, Error)]
pub(crate) enum ConfigurationError {
    #[error("the configuration file {path} can't be read: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "the configuration file {path} is wrong:\n{source}Correct the line, or see the guides for its keys."
    )]
    Malformed { path: PathBuf, source: toml::de::Error },
    #[error("there is no home folder to keep state in; give --data-dir")]
    NoHome,
}

impl Configuration {
    /// Reads the file that was named, or the one in its default place where there is one.
    pub(crate) fn load(named: Option<&Path>, data_dir: Option<PathBuf>) -> Result<Self, ConfigurationError> {
        let places = directories::ProjectDirs::from("", "", "gristmill");
        let file = match (named, &places) {
            (Some(path), _) => read(path)?,
            (None, Some(places)) => {
                let path = places.config_dir().join("config.toml");
                if path.exists() {
                    read(&path)?
                } else {
                    ConfigurationFile::default()
                }
            }
            (None, None) => ConfigurationFile::default(),
        };
        let data_dir = data_dir
            .or_else(|| places.map(|places| places.data_dir().to_owned()))
            .ok_or(ConfigurationError::NoHome)?;
        Ok(Self { file, data_dir })
    }
}

fn read(path: &Path) -> Result<ConfigurationFile, ConfigurationError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigurationError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigurationError::Malformed {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Configuration, ConfigurationError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Configuration::load(Some(&path), Some(folder.path().to_owned()))
    }

    #[test]
    fn unknown_keys_name_the_line() {
        let error = load("[node]\n\n[client]\nlissten = \"127.0.0.1:1\"\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 4") && error.contains("lissten"), "{error}");
        let error = load("[nodes]\n").unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("nodes"), "{error}");
    }

    #[test]
    fn a_named_file_that_is_not_there_is_an_error() {
        let error = Configuration::load(Some(Path::new("/nowhere/config.toml")), None).unwrap_err();
        assert!(matches!(error, ConfigurationError::Unreadable { .. }));
    }

    #[test]
    fn sections_reach_their_roles() {
        let configuration = load("[coordinator]\nname = \"village\"\n").unwrap();
        assert_eq!(configuration.file.coordinator.name.as_deref(), Some("village"));
    }
}
