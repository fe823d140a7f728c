use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const PLACE: Place<'_> = Place { cluster: "c-1", credential: "openai/main", version: 3 };

fn keyring(id: &str) -> Keyring {
    Keyring::of(Kek::generate(id).unwrap())
}

fn seal(keyring: &Keyring, value: &str) -> Sealed {
    keyring.current().unwrap().public().seal(PLACE, &SecretString::from(value)).unwrap()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn only_its_own_place_opens_a_value() {
    let keyring = keyring("k1");
    let sealed = seal(&keyring, "sk-secret");
    assert_eq!(keyring.open(PLACE, &sealed).unwrap().expose_secret(), "sk-secret");
    let elsewhere = [
        Place { cluster: "c-2", ..PLACE },
        Place { credential: "openai/other", ..PLACE },
        Place { version: 4, ..PLACE },
        // The same bytes in a row, split elsewhere.
        Place { cluster: "c-1o", credential: "penai/main", ..PLACE },
    ];
    for place in elsewhere {
        assert_eq!(keyring.open(place, &sealed).unwrap_err(), SealError::Unwrap { kek_id: "k1".to_owned() }, "{place:?}");
    }
    // Each layer by itself: the value of one place under the data key of another.
    let other = keyring.current().unwrap().public().seal(Place { version: 4, ..PLACE }, &SecretString::from("x")).unwrap();
    let mixed = Sealed { nonce: other.nonce, ciphertext: other.ciphertext, ..sealed };
    assert_eq!(keyring.open(PLACE, &mixed).unwrap_err(), SealError::Open);
}

#[test]
fn another_key_of_the_same_name_opens_nothing_and_a_missing_one_is_named() {
    let sealed = seal(&keyring("k1"), "v");
    assert!(matches!(keyring("k1").open(PLACE, &sealed), Err(SealError::Unwrap { .. })));
    let error = keyring("k2").open(PLACE, &sealed).unwrap_err().to_string();
    assert!(error.contains("no key-encryption key `k1`; this keyring has k2"), "{error}");
    // A wrapped key says by which name it was wrapped.
    let renamed = Sealed { kek_id: "k3".to_owned(), ..sealed };
    assert!(matches!(keyring("k3").open(PLACE, &renamed), Err(SealError::Unwrap { .. })));
}

#[test]
fn equal_values_do_not_look_equal() {
    let keyring = keyring("k1");
    let (one, other) = (seal(&keyring, "same"), seal(&keyring, "same"));
    assert_ne!(one.ciphertext, other.ciphertext);
    assert_ne!(one.wrapped_dek, other.wrapped_dek);
    assert_ne!(one.nonce, other.nonce);
}

#[test]
fn nothing_secret_is_printed() {
    let keyring = keyring("k1");
    let line = keyring.current().unwrap().to_line();
    let sealed = seal(&keyring, "sk-secret");
    let printed = format!("{keyring:?} {sealed:?} {:?}", line);
    let secret = line.expose_secret().rsplit(':').next().unwrap();
    assert!(!printed.contains(secret) && !printed.contains("sk-secret"), "{printed}");
}

#[test]
fn key_files_read_back_with_the_first_key_current() {
    let (new, old) = (Kek::generate("2027-01").unwrap(), Kek::generate("2026-07").unwrap());
    let sealed = old.public().seal(PLACE, &SecretString::from("v")).unwrap();
    let text = format!("# keys of the mesh\n{}\n\n  {}\n", new.to_line().expose_secret(), old.to_line().expose_secret());
    let keyring = Keyring::read(file(&text).path()).unwrap();
    assert_eq!(keyring.current().unwrap().id(), "2027-01");
    assert_eq!(keyring.open(PLACE, &sealed).unwrap().expose_secret(), "v");
    let public = PublicKeyring::read(file(&keyring.public().to_text()).path()).unwrap();
    assert_eq!(public.current().unwrap().id(), "2027-01");
    let sealed = public.current().unwrap().seal(PLACE, &SecretString::from("w")).unwrap();
    assert_eq!(keyring.open(PLACE, &sealed).unwrap().expose_secret(), "w");
}

#[test]
fn what_is_no_key_file_is_named_without_repeating_it() {
    let kek = Kek::generate("k1").unwrap();
    let line = kek.to_line().expose_secret().to_owned();
    let table = [
        (String::new(), "holds no key"),
        ("# nothing\n".to_owned(), "holds no key"),
        ("hunter2".to_owned(), "line 1: not of the form"),
        (format!("\n{}", &line[..line.len() - 2]), "line 2: the key"),
        (format!("{line}\n{line}"), "line 2: the id stands above already"),
        (kek.public().to_line(), "line 1: a public key"),
        (line.replace(":k1:", ":K 1:"), "line 1: the id is not usable"),
        ("kek-v9:a:b".to_owned(), "line 1: an unknown kind of key"),
    ];
    for (text, words) in table {
        let error = Keyring::read(file(&text).path()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("hunter2") && !error.contains(line.rsplit(':').next().unwrap()), "{error}");
    }
    let error = PublicKeyring::read(file(&line).path()).unwrap_err().to_string();
    assert!(error.contains("where only public ones belong"), "{error}");
    assert!(Keyring::read(Path::new("/nowhere/kek")).unwrap_err().to_string().contains("/nowhere/kek"));
    assert!(matches!(Kek::generate("Upper"), Err(KekError::Id)));
}

#[test]
fn a_passphrase_makes_the_same_key_each_time_and_another_in_each_cluster() {
    let words = SecretString::from("correct horse battery staple\n");
    let one = Kek::from_passphrase(&words, "c-1").unwrap();
    let again = Keyring::read_passphrase(file(words.expose_secret()).path(), "c-1").unwrap();
    assert_eq!(again.current().unwrap().id(), one.id());
    let sealed = one.public().seal(PLACE, &SecretString::from("v")).unwrap();
    assert_eq!(again.open(PLACE, &sealed).unwrap().expose_secret(), "v");
    assert_ne!(Kek::from_passphrase(&words, "c-2").unwrap().id(), one.id());
    assert!(matches!(Kek::from_passphrase(&SecretString::from("short"), "c-1"), Err(KekError::Passphrase)));
}

proptest! {
    #[test]
    fn every_value_comes_back(value in "\\PC{0,300}", credential in "\\PC{0,40}", version in any::<u32>()) {
        let keyring = keyring("k1");
        let place = Place { cluster: "c", credential: &credential, version };
        let sealed = keyring.current().unwrap().public().seal(place, &SecretString::from(value.as_str())).unwrap();
        let opened = keyring.open(place, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), value.as_str());
    }

    #[test]
    fn any_flipped_bit_and_any_lost_byte_fails(which in 0..3_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let keyring = keyring("k1");
        let mut flipped = seal(&keyring, "the value");
        let mut cut = flipped.clone();
        let bytes = part(&mut flipped, which);
        let position = at.index(bytes.len());
        bytes[position] ^= 1 << bit;
        // X25519 ignores the top bit of a public key (RFC 7748, section 5), but the encapsulation itself is authenticated by HPKE.
        prop_assert!(keyring.open(PLACE, &flipped).is_err());
        part(&mut cut, which).remove(position);
        prop_assert!(keyring.open(PLACE, &cut).is_err());
    }

    #[test]
    fn rotation_keeps_values_and_touches_no_ciphertext(value in "\\PC{1,100}") {
        let (old, new) = (Kek::generate("old").unwrap(), Kek::generate("new").unwrap());
        let (old, new) = (Keyring::of(old), Keyring::of(new));
        let sealed = seal(&old, &value);
        let rewrapped = old.rewrap(PLACE, &sealed, new.current().unwrap().public()).unwrap();
        prop_assert_eq!(&rewrapped.kek_id, "new");
        prop_assert_eq!((&rewrapped.nonce, &rewrapped.ciphertext), (&sealed.nonce, &sealed.ciphertext));
        let opened = new.open(PLACE, &rewrapped).unwrap();
        prop_assert_eq!(opened.expose_secret(), value.as_str());
        prop_assert!(old.open(PLACE, &rewrapped).is_err());
        prop_assert!(new.rewrap(PLACE, &sealed, new.current().unwrap().public()).is_err());
    }
}

fn part(sealed: &mut Sealed, which: usize) -> &mut Vec<u8> {
    match which {
        0 => &mut sealed.wrapped_dek,
        1 => &mut sealed.nonce,
        _ => &mut sealed.ciphertext,
    }
}
