//! Numbered steps from any released schema to the newest; `PRAGMA user_version` says which were taken.

use std::path::PathBuf;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;
use super::schema::{APPLICATION_ID, SCHEMA};

/// Step n leads from schema n to n + 1. Released ones are never edited, and a database of each released schema is kept as
/// `testdata/schemas/N.db` and taken over by a test (`tests/migrate.rs`).
pub(super) const MIGRATIONS: &[&str] = &[SCHEMA];

/// Takes the steps that are missing, each in a transaction of its own.
pub(super) fn migrate(db: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let known = i64::try_from(steps.len()).expect("a handful of steps");
    loop {
        // Looked up inside the transaction that acts on it.
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let whose: i64 = transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if whose != APPLICATION_ID && (found != 0 || tables != 0) {
            return Err(StoreError::Corrupt { reason: "the database was not made by pigeonfs".to_owned() });
        }
        if found > known {
            let path = db_path(&transaction);
            return Err(StoreError::NewerSchema { path, found, known });
        }
        let step = usize::try_from(found)
            .map_err(|_| StoreError::Corrupt { reason: format!("schema {found} does not exist") })?;
        let Some(step) = steps.get(step) else { return Ok(()) };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}

fn db_path(db: &Connection) -> PathBuf {
    db.path().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(db: &Connection) -> i64 {
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn steps_are_taken_once_and_in_order() {
        let mut db = Connection::open_in_memory().unwrap();
        migrate(&mut db, MIGRATIONS).unwrap();
        let newest = i64::try_from(MIGRATIONS.len()).unwrap();
        assert_eq!(version(&db), newest);
        migrate(&mut db, MIGRATIONS).unwrap();
        let next = [MIGRATIONS, &["CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT;"]].concat();
        migrate(&mut db, &next).unwrap();
        assert_eq!(version(&db), newest + 1);
        assert_eq!(
            migrate(&mut db, MIGRATIONS),
            Err(StoreError::NewerSchema { path: PathBuf::new(), found: newest + 1, known: newest }),
            "the version before refuses it"
        );
        db.execute("INSERT INTO later VALUES (1)", []).unwrap();
    }

    #[test]
    fn a_step_that_fails_leaves_the_schema_before_it() {
        let mut db = Connection::open_in_memory().unwrap();
        let broken = [SCHEMA, "CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT; CREATE TABLE channel (id);"];
        assert!(migrate(&mut db, &broken).is_err());
        assert_eq!(version(&db), 1);
        assert!(db.prepare("SELECT * FROM later").is_err());
        migrate(&mut db, MIGRATIONS).unwrap();
    }

    #[test]
    fn a_database_of_something_else_is_refused() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE theirs (id)").unwrap();
        assert!(matches!(migrate(&mut db, MIGRATIONS), Err(StoreError::Corrupt { .. })));
    }
}
