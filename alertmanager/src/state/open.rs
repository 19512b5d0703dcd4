//! Opening the state folder: version, damage, and a second program that has it open.

use super::flusher::Flusher;
use super::{Kind, Opened, Store};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

/// The layout that this program writes.
const VERSION: u32 = 1;
const VERSION_KEY: &str = "version";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another program has it open.
    #[error("{0} is in use by another program; choose another folder with --storage.path")]
    InUse(PathBuf),
    /// A newer program wrote it.
    #[error("{path} was written by a newer Pharos (state version {found}, this one knows {VERSION})")]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The system refuses.
    #[error("cannot open {path} (--storage.path): {message}")]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// What was written cannot be made durable.
    #[error("the state folder cannot be written: {0}")]
    Flush(String),
}

impl Store {
    /// Opens the folder, creating it if need be. One that is damaged beyond reading is moved aside and an
    /// empty one takes its place; [`Store::set_aside`] then says where it went.
    ///
    /// # Errors
    /// If it is in use, was written by a newer program, or cannot be created.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let fault = |message: String| StateError::Open { path: path.to_owned(), message };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| fault(error.to_string()))?;
        }
        let (opened, set_aside) = match try_open(path) {
            Ok(opened) => (opened, None),
            Err(Refusal::Damaged(why)) => {
                let aside = free_name(path);
                std::fs::rename(path, &aside).map_err(|error| fault(error.to_string()))?;
                tracing::error!(path = %path.display(), set_aside = %aside.display(), error = %why,
                    "The state folder is damaged and was set aside; starting with an empty one: silences, acknowledgements and escalations in it are not known");
                let opened = try_open(path).map_err(|refusal| refusal.into_error(path))?;
                (opened, Some(aside))
            }
            Err(refusal) => return Err(refusal.into_error(path)),
        };
        let (db, trees) = opened;
        let audit = &trees[Kind::Audit as usize];
        let newest = audit.last().ok().flatten().and_then(|(key, _)| key.as_ref().try_into().ok());
        Ok(Store {
            next_audit: AtomicU64::new(newest.map_or(0, |key| u64::from_be_bytes(key) + 1)),
            path: path.to_owned(),
            opened: RwLock::new(Opened { trees, flusher: Arc::new(Flusher::start(db)) }),
            set_aside,
            damaged: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
        })
    }

    /// Lets go of a database that refuses writes.
    pub(crate) fn close(&self) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        opened.flusher.poison("it is being opened again");
        opened.flusher.close();
        opened.trees.clear();
    }

    /// Opens it again after [`Store::close`]. What was written since it began to refuse is not in it.
    ///
    /// # Errors
    /// If it cannot be opened yet. Nothing is set aside here: memory holds what matters.
    pub(crate) fn reopen(&self) -> Result<(), StateError> {
        let (db, trees) = try_open(&self.path).map_err(|refusal| refusal.into_error(&self.path))?;
        let flusher = Arc::new(Flusher::start(db));
        *self.opened.write().unwrap_or_else(PoisonError::into_inner) = Opened { trees, flusher };
        Ok(())
    }
}

enum Refusal {
    InUse,
    Newer(u32),
    Damaged(String),
    System(String),
}

impl Refusal {
    fn into_error(self, path: &Path) -> StateError {
        let path = path.to_owned();
        match self {
            Refusal::InUse => StateError::InUse(path),
            Refusal::Newer(found) => StateError::Newer { path, found },
            Refusal::Damaged(message) | Refusal::System(message) => StateError::Open { path, message },
        }
    }
}

fn refusal(error: sled::Error) -> Refusal {
    match error {
        // sled says so in words only when it cannot take the lock.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => Refusal::InUse,
        sled::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => Refusal::InUse,
        sled::Error::Io(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::ReadOnlyFilesystem
                    | std::io::ErrorKind::NotADirectory
                    | std::io::ErrorKind::AlreadyExists
            ) =>
        {
            Refusal::System(error.to_string())
        }
        error => Refusal::Damaged(error.to_string()),
    }
}

fn try_open(path: &Path) -> Result<(sled::Db, Vec<sled::Tree>), Refusal> {
    let existed = std::fs::metadata(path.join("db")).is_ok_and(|file| file.len() > 0);
    let open = || -> Result<(sled::Db, Vec<sled::Tree>), Refusal> {
        // Flushes are asked for by whoever needs them.
        let db = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(32 << 20).open();
        let db = db.map_err(refusal)?;
        let mut trees = Vec::new();
        for kind in Kind::ALL {
            let tree = db.open_tree(kind.name()).map_err(refusal)?;
            // Reads everything once, so that damage shows now and not in the middle of a page.
            if let Some(error) = tree.iter().find_map(Result::err) {
                return Err(refusal(error));
            }
            trees.push(tree);
        }
        let meta = &trees[Kind::Meta as usize];
        match meta.get(VERSION_KEY).map_err(refusal)? {
            // sled takes a file that it cannot read at all for an empty one.
            None if existed => return Err(Refusal::Damaged("nothing in it can be read".to_owned())),
            None => {
                meta.insert(VERSION_KEY, VERSION.to_string().as_bytes()).map_err(refusal)?;
            }
            Some(bytes) => match std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<u32>().ok()) {
                Some(version) if version <= VERSION => {}
                Some(version) => return Err(Refusal::Newer(version)),
                None => return Err(Refusal::Damaged("its version cannot be read".to_owned())),
            },
        }
        Ok((db, trees))
    };
    // sled 0.34 answers some damage with a panic.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(Refusal::Damaged("reading it failed".to_owned())))
}

fn free_name(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    (1..u32::MAX)
        .map(|number| path.with_file_name(format!("{name}.damaged-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.with_file_name(format!("{name}.damaged")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_durable_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path).unwrap();
        store.put(Kind::Silences, "a", &"one");
        store.audit(&"entry");
        store.durable().await.unwrap();
        assert!(matches!(Store::open(&path), Err(StateError::InUse(_))));
        drop(store);
        let store = loop {
            // The flusher's task lets go of the folder shortly after the store.
            tokio::task::yield_now().await;
            match Store::open(&path) {
                Err(StateError::InUse(_)) => {}
                opened => break opened.unwrap(),
            }
        };
        assert_eq!(store.all::<String>(Kind::Silences), [(b"a".to_vec(), "one".to_owned())]);
        assert_eq!(store.newest_audit::<String>(10), ["entry"]);
        assert_eq!(store.set_aside, None);
    }

    #[tokio::test]
    async fn one_that_refused_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        store.put(Kind::Silences, "a", &"one");
        store.put(Kind::Silences, "b", &"two");
        store.durable().await.unwrap();
        store.close();
        store.put(Kind::Silences, "c", &"lost");
        assert!(store.durable().await.is_err() && store.broken().is_some());
        loop {
            tokio::task::yield_now().await;
            match store.reopen() {
                Err(StateError::InUse(_)) => {}
                opened => break opened.unwrap(),
            }
        }
        let three = "three".to_owned();
        store.replace(Kind::Silences, [(b"b".to_vec(), &three)].into_iter());
        store.durable().await.unwrap();
        assert_eq!(store.broken(), None);
        assert_eq!(store.all::<String>(Kind::Silences), [(b"b".to_vec(), three)]);
    }

    #[tokio::test]
    async fn a_damaged_folder_is_set_aside_and_a_newer_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("conf"), "garbage").unwrap();
        std::fs::write(path.join("db"), vec![0xa5; 4096]).unwrap();
        let store = Store::open(&path).unwrap();
        let aside = store.set_aside.clone().unwrap();
        assert!(aside.join("db").exists());
        store.put(Kind::Meta, VERSION_KEY, &999);
        store.durable().await.unwrap();
        drop(store);
        let error = loop {
            tokio::task::yield_now().await;
            match Store::open(&path) {
                Err(StateError::InUse(_)) => {}
                opened => break opened.err().unwrap(),
            }
        };
        assert!(matches!(error, StateError::Newer { found: 999, .. }), "{error}");
    }
}
