//! Notices changed files by looking, not by asking the kernel to tell: a Kubernetes volume swaps a symlink two levels up, which
//! notifications on the file itself never see.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The configuration file and the secrets it refers to.
#[derive(Debug, Default)]
pub(super) struct Watch {
    files: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// What the cheap look saw; `None` when the file could not be looked at.
    look: Option<Look>,
    /// BLAKE3 of the content when it was last read.
    digest: Option<[u8; 32]>,
}

/// What a file system says without reading: behind symlinks, so that a swapped link shows.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    target: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
}

impl Watch {
    /// Watches a configuration file from its content of now on.
    pub(super) fn new(config: &Path) -> Watch {
        Watch { files: vec![Watched::new(config.to_owned())] }
    }

    /// Watches these files besides the configuration, and no others.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let known = self.files.split_off(self.files.len().min(1));
        let mut known: Vec<Option<Watched>> = known.into_iter().map(Some).collect();
        for path in files {
            // What is known stays as it was seen, so that a change since then is noticed.
            let seen = known.iter_mut().find(|file| file.as_ref().is_some_and(|file| file.path == *path)).and_then(Option::take);
            self.files.push(seen.unwrap_or_else(|| Watched::new(path.clone())));
        }
    }

    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        self.files.first().map_or(Path::new(""), |file| &file.path)
    }

    /// Looks at all files; true when the content of any is not what it was at the last look.
    pub(super) fn look(&mut self) -> bool {
        let mut changed = false;
        for file in &mut self.files {
            changed |= file.look();
        }
        changed
    }
}

impl Watched {
    fn new(path: PathBuf) -> Watched {
        let look = Look::at(&path).ok();
        let digest = digest_of(&path);
        Watched { path, look, digest }
    }

    fn look(&mut self) -> bool {
        let look = Look::at(&self.path).ok();
        // A file that is gone for a moment is being replaced: what counts is what comes.
        if look.is_none() || look == self.look {
            return false;
        }
        let digest = digest_of(&self.path);
        let changed = digest.is_some() && digest != self.digest;
        if digest.is_some() {
            self.look = look;
            self.digest = digest;
        }
        changed
    }
}

impl Look {
    fn at(path: &Path) -> io::Result<Look> {
        let target = path.canonicalize()?;
        let metadata = target.metadata()?;
        Ok(Look { modified: metadata.modified().ok(), length: metadata.len(), target })
    }
}

fn digest_of(path: &Path) -> Option<[u8; 32]> {
    std::fs::read(path).ok().map(|content| *blake3::hash(&content).as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn content_counts_and_not_the_time_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tidegate.yaml");
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(&path);
        assert!(!watch.look());
        fs::write(&path, "ab").unwrap();
        assert!(watch.look());
        assert!(!watch.look(), "a change is reported once");
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!watch.look(), "touched, with the same content");
    }

    #[test]
    fn a_swapped_symlink_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("v1", "old"), ("v2", "new")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tidegate.yaml"), text).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/tidegate.yaml", at("tidegate.yaml")).unwrap();
        let mut watch = Watch::new(&at("tidegate.yaml"));
        assert!(!watch.look());
        symlink("v2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert!(watch.look());
    }

    #[test]
    fn a_missing_file_is_no_change_until_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let (config, secret) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&config, "a").unwrap();
        fs::write(&secret, "old").unwrap();
        let mut watch = Watch::new(&config);
        watch.follow(std::slice::from_ref(&secret));
        fs::remove_file(&secret).unwrap();
        assert!(!watch.look());
        fs::write(&secret, "rotated").unwrap();
        watch.follow(std::slice::from_ref(&secret));
        assert!(watch.look(), "also when the list was renewed in between");
    }

    #[test]
    fn a_file_that_appears_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let (config, secret) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&config, "a").unwrap();
        let mut watch = Watch::new(&config);
        watch.follow(std::slice::from_ref(&secret));
        assert!(!watch.look());
        fs::write(&secret, "at last").unwrap();
        assert!(watch.look());
    }
}
