//! Snapshots: a folder of hard links to the blocks, taken while the engine runs. It is a complete storage
//! folder; `--storage.path` opens it.

use super::{Database, delete, open};
use crate::error::TsdbError;
use crate::manifest;
use pharos_common::storage_io::write_atomically;
use std::path::{Path, PathBuf};

impl Database {
    /// Seals the head into blocks and links all of them into `snapshots/NAME`, which must not exist; the
    /// folder, durable. Links take no room until the originals are merged away. Blocks the thread.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn snapshot(&self, name: &str) -> Result<PathBuf, TsdbError> {
        let inner = &*self.inner;
        let snapshots = inner.folder.join("snapshots");
        let unfinished = snapshots.join(format!("{name}.tmp"));
        let finished = snapshots.join(name);
        inner.io.create_dir_all(&unfinished.join("blocks"))?;
        let linked = inner.with_still_blocks(|blocks, deletions| {
            for block in blocks {
                inner.io.hard_link(block, &unfinished.join("blocks").join(file_name(block)))?;
            }
            // What was deleted must not come back by a backup.
            delete::write(&*inner.io, &unfinished, deletions)
        });
        let published = linked.and_then(|()| {
            let names = inner.io.list(&unfinished.join("blocks"))?;
            let names = names.into_iter().map(|name| (name, None)).collect();
            write_atomically(&*inner.io, &unfinished.join(manifest::FILE_NAME), &manifest::encode(&names))?;
            write_atomically(&*inner.io, &unfinished.join("VERSION"), open::version_text().as_bytes())?;
            inner.io.sync_dir(&unfinished.join("blocks"))?;
            inner.io.rename(&unfinished, &finished)?;
            Ok(inner.io.sync_dir(&snapshots)?)
        });
        if let Err(error) = published {
            // What is left of it takes no room; the next snapshot has another name.
            let _ = inner.io.remove_dir_all(&unfinished);
            return Err(error);
        }
        Ok(finished)
    }
}

fn file_name(block: &Path) -> &Path {
    Path::new(block.file_name().unwrap_or_default())
}
