use std::os::unix::fs::PermissionsExt;

use super::*;

const NOW: u64 = 1_790_000_000;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn read_all(paths: &DevCertificates) -> [Vec<u8>; 3] {
    [&paths.ca_cert_path, &paths.cert_path, &paths.key_path].map(|path| fs::read(path).unwrap())
}

#[test]
fn certificates_are_private_made_once_and_verify() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("deep/tls");
    let paths = DevCa::ensure_at(&dir, NOW).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&paths.key_path), 0o600);
    assert_eq!(mode(&dir.join("ca.key")), 0o600);
    let first = read_all(&paths);
    DevCa::ensure_at(&dir, NOW + 3_600).unwrap();
    assert_eq!(read_all(&paths), first);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4, "nothing but the four files is left");
}

#[test]
fn an_expiring_leaf_is_renewed_by_the_same_authority() {
    let home = tempfile::tempdir().unwrap();
    let paths = DevCa::ensure_at(home.path(), NOW).unwrap();
    let first = read_all(&paths);
    let later = NOW + (LEAF_LIFE - RENEW_BEFORE).as_secs();
    DevCa::ensure_at(home.path(), later).unwrap();
    let second = read_all(&paths);
    assert_eq!(second[0], first[0]);
    assert!(second[1] != first[1] && second[2] != first[2]);
    let authority = Authority::read(&paths.ca_cert_path, &home.path().join("ca.key"), later).unwrap();
    assert!(leaf_is_good(&paths, &authority, later));
}

#[test]
fn broken_files_are_replaced() {
    let home = tempfile::tempdir().unwrap();
    let paths = DevCa::ensure_at(home.path(), NOW).unwrap();
    let first = read_all(&paths);
    fs::write(&paths.cert_path, "half a certificate").unwrap();
    DevCa::ensure_at(home.path(), NOW).unwrap();
    let second = read_all(&paths);
    assert_eq!(second[0], first[0]);
    fs::write(home.path().join("ca.key"), "").unwrap();
    DevCa::ensure_at(home.path(), NOW).unwrap();
    let third = read_all(&paths);
    assert_ne!(third[0], first[0]);
    let authority = Authority::read(&paths.ca_cert_path, &home.path().join("ca.key"), NOW).unwrap();
    assert!(leaf_is_good(&paths, &authority, NOW));
}

#[test]
fn an_unusable_directory_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    let error = DevCa::ensure_at(&file.join("tls"), NOW).unwrap_err().to_string();
    assert!(error.contains("file/tls"), "{error}");
    assert!(error.contains("make the directory writable or choose another"), "{error}");
}
