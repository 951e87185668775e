//! What the host keeps beside the records: settings, the invitations that its CA has promised and the
//! certificates that it has issued.
//!
//! Each method is one durable transaction. Of a token only the hash of its secret is kept. Who may be invited or
//! gets a certificate is the CA's decision, not this module's.

use rusqlite::{OptionalExtension, Row, params};
use sync_core::{
    id::{NodeId, OrgId},
    identity::{NodeInfo, Role, Serial},
    store::StoreError,
};

use super::{Fallible, Fault, SqliteStore, broken, read::array, read::node_info, read::parse};

/// A one-time token, as its issuer remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// SHA-256 of the token's secret.
    pub secret_hash: [u8; 32],
    /// The organization that may enrol with it.
    pub org: OrgId,
    /// What it will be.
    pub role: Role,
    /// Until when, in milliseconds since 1970.
    pub expires: i64,
    /// The public key that enrolled with it, once used.
    pub used_by: Option<Vec<u8>>,
}

/// A certificate that this node has issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its serial number.
    pub serial: Serial,
    /// What it says.
    pub info: NodeInfo,
    /// The end of its validity, in milliseconds since 1970.
    pub not_after: i64,
    /// When it was issued, in milliseconds since 1970.
    pub at: i64,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

impl SqliteStore {
    /// A setting of the host.
    pub fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|| {
            let mut statement = self.conn.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
            Ok(statement.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    /// Keeps a setting of the host.
    pub fn set_setting(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.transact(|| {
            let sql = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
            self.conn.prepare_cached(sql)?.execute(params![name, value])?;
            Ok(())
        })
    }

    /// Keeps a new invitation.
    pub fn add_invite(&mut self, invite: &Invite) -> Result<(), StoreError> {
        self.transact(|| {
            let sql =
                "INSERT INTO invite (secret_hash, org, role, expires, used_by) VALUES (?1, ?2, ?3, ?4, ?5)";
            self.conn.prepare_cached(sql)?.execute(params![
                invite.secret_hash,
                invite.org.as_str(),
                invite.role.as_str(),
                invite.expires,
                invite.used_by
            ])?;
            Ok(())
        })
    }

    /// The invitation with this secret.
    pub fn invite(&self, secret_hash: &[u8; 32]) -> Result<Option<Invite>, StoreError> {
        self.reading(|| {
            let sql = "SELECT secret_hash, org, role, expires, used_by FROM invite WHERE secret_hash = ?1";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([secret_hash])?;
            rows.next()?.map(invite).transpose()
        })
    }

    /// All invitations, the one that expires first at the front.
    pub fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.reading(|| {
            let sql =
                "SELECT secret_hash, org, role, expires, used_by FROM invite ORDER BY expires, secret_hash";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut invites = Vec::new();
            while let Some(row) = rows.next()? {
                invites.push(invite(row)?);
            }
            Ok(invites)
        })
    }

    /// Uses an invitation for a public key. True when it is this key's now: it was unused, or the same key had
    /// used it before and asks again because the answer was lost.
    pub fn use_invite(&mut self, secret_hash: &[u8; 32], key: &[u8], at: i64) -> Result<bool, StoreError> {
        self.transact(|| {
            let sql = "UPDATE invite SET used_by = ?2, used_at = coalesce(used_at, ?3)
                       WHERE secret_hash = ?1 AND (used_by IS NULL OR used_by = ?2)";
            Ok(self.conn.prepare_cached(sql)?.execute(params![secret_hash, key, at])? == 1)
        })
    }

    /// Forgets an invitation. False when there is none, or when it has been used and is part of the history.
    pub fn withdraw_invite(&mut self, secret_hash: &[u8; 32]) -> Result<bool, StoreError> {
        self.transact(|| {
            let sql = "DELETE FROM invite WHERE secret_hash = ?1 AND used_by IS NULL";
            Ok(self.conn.prepare_cached(sql)?.execute([secret_hash])? == 1)
        })
    }

    /// Keeps a certificate that this node has issued.
    pub fn add_issued(&mut self, issued: &Issued) -> Result<(), StoreError> {
        self.transact(|| {
            let sql = "INSERT INTO issued (serial, node, place, role, not_after, at, certificate)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            self.conn.prepare_cached(sql)?.execute(params![
                issued.serial.as_bytes(),
                issued.info.node.0,
                issued.info.place.to_string(),
                issued.info.role.as_str(),
                issued.not_after,
                issued.at,
                issued.certificate
            ])?;
            Ok(())
        })
    }

    /// The certificates that this node has issued to that one, or to all, oldest first.
    pub fn issued(&self, node: Option<NodeId>) -> Result<Vec<Issued>, StoreError> {
        self.reading(|| {
            let sql = "SELECT serial, node, place, role, not_after, at, certificate FROM issued
                       WHERE ?1 IS NULL OR node = ?1 ORDER BY at, serial";
            let mut statement = self.conn.prepare_cached(sql)?;
            let mut rows = statement.query([node.map(|node| node.0)])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let serial = Serial::new(row.get_ref(0)?.as_blob()?);
                all.push(Issued {
                    serial: serial
                        .map_or_else(|| broken("an issued certificate has no serial number"), Ok)?,
                    info: node_info(row, 1)?,
                    not_after: row.get(4)?,
                    at: row.get(5)?,
                    certificate: row.get(6)?,
                });
            }
            Ok(all)
        })
    }
}

fn invite(row: &Row<'_>) -> Fallible<Invite> {
    let role = Role::from_name(row.get_ref(2)?.as_str()?);
    Ok(Invite {
        secret_hash: array(row, 0)?,
        org: parse(row.get_ref(1)?.as_str()?, "organization")?,
        role: role.ok_or_else(|| Fault::Broken("an invitation holds an unknown role".into()))?,
        expires: row.get(3)?,
        used_by: row.get(4)?,
    })
}
