//! Where snapshot files are kept: a directory, written so that a crash leaves the old file or the new one, never a part.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// A place for whole files. The second implementation is the tests' disk that fails on demand.
pub(crate) trait Files: Send + Sync + 'static {
    /// Names of all files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Bytes>;
    /// Writes a whole file; durable when it returns.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A directory of a file system.
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Creates the directory when it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .filter(|name| !name.as_ref().is_ok_and(|name| name.ends_with(UNFINISHED)))
            .collect()
    }

    fn read(&self, name: &str) -> io::Result<Bytes> {
        fs::read(self.path.join(name)).map(Bytes::from)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let mut file = File::create(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&unfinished, self.path.join(name))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.sync()
    }
}

const UNFINISHED: &str = ".unfinished";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_not_there() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(&place.path().join("new/one")).unwrap();
        directory.write("a", b"first").unwrap();
        directory.write("a", b"second").unwrap();
        fs::write(place.path().join("new/one/b.unfinished"), b"half").unwrap();
        assert_eq!(directory.list().unwrap(), ["a"]);
        assert_eq!(directory.read("a").unwrap(), "second");
        directory.remove("a").unwrap();
        assert!(directory.list().unwrap().is_empty());
    }
}
