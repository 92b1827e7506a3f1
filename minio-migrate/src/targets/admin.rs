//! MinIO's admin API on both sides, and the logins of those who write.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Certificate;
use veza_probe::clock::Clock;
use veza_probe::minio::{Admin, Door, Login};
use veza_probe::secret::Secret;

use crate::cli::Endpoint;

/// A client of the admin API of one side.
///
/// # Errors
/// A sentence for the user.
pub fn admin(
    clock: &Clock,
    endpoints: &[Endpoint],
    certificates: Option<&[u8]>,
    (login, region): (&Login, &str),
) -> Result<Admin, String> {
    let client = client(certificates)?;
    let door = |endpoint: &Endpoint| Door {
        name: endpoint.name.clone(),
        base: endpoint.url.clone(),
        client: client.clone(),
    };
    Ok(Admin::new(
        clock,
        endpoints.iter().map(door).collect(),
        login,
        region,
    ))
}

/// A client that keeps no connections.
///
/// # Errors
/// A sentence for the user.
pub fn client(certificates: Option<&[u8]>) -> Result<reqwest::Client, String> {
    // Fails when somebody was here before: then it is done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0);
    if let Some(bytes) = certificates {
        let all = Certificate::from_pem_bundle(bytes)
            .map_err(|error| format!("MINIO_CA_FILE: {error}"))?;
        builder = builder.tls_certs_only(all);
    }
    let built = builder.build();
    built.map_err(|error| format!("building the HTTP client: {error}"))
}

/// The logins of writers, from a file that nobody else may read.
///
/// # Errors
/// A sentence that names the file and the writer, and no secret.
pub fn writers(names: &[String], path: &Path) -> Result<Vec<Login>, String> {
    let file = path.display();
    let told = |error: std::io::Error| format!("MINIO_WRITER_SECRETS_FILE: {file}: {error}");
    let mode = std::fs::metadata(path).map_err(told)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "MINIO_WRITER_SECRETS_FILE: others may read {file}: chmod 600 {file}"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(told)?;
    let known: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .collect();
    let login = |name: &String| {
        let found = known.iter().find(|(access, _)| access == name);
        let (access, secret) = found
            .ok_or_else(|| format!("MINIO_WRITER_SECRETS_FILE: {file} has no line of {name}"))?;
        Ok(Login {
            access: Secret::new((*access).to_owned()),
            secret: Secret::new(secret.trim().to_owned()),
        })
    };
    names.iter().map(login).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_have_their_logins_in_a_file_of_their_own() {
        let path = std::env::temp_dir().join(format!("veza-writers-{}", std::process::id()));
        std::fs::write(&path, "app  hunter2\n\nother hunter3\n").unwrap();
        let names = ["app".to_owned()];
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).unwrap();
        let words = writers(&names, &path).unwrap_err();
        assert!(words.contains("others may read"), "{words}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let read = writers(&names, &path).unwrap();
        assert_eq!((read.len(), read[0].secret.expose()), (1, "hunter2"));
        let words = writers(&["nobody".to_owned()], &path).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(
            words.contains("nobody") && !words.contains("hunter"),
            "{words}"
        );
    }
}
