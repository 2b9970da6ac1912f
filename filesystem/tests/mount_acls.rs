//! Access control lists, as `setfacl` sets and the kernel obeys them: the same on the drive as on a local file system.
//!
//! Once they were refused, and `cp -a`, `rsync -A` and every installer that sets one ended with errors.

mod support;

use support::{have, shell, with_volume};

/// Prints what lists and modes become; run on two file systems, it prints the same.
const SCRIPT: &str = r#"
    show() { getfacl -cpn "$@"; stat -c '%a %n' "$@"; }
    umask 022
    mkdir directory; echo content > directory/file
    chmod 640 directory/file
    setfacl -m u:65534:rw,g:7:r directory/file; show directory/file
    chmod 600 directory/file; show directory/file
    chmod 664 directory/file; show directory/file
    cp -a directory/file directory/copy; show directory/copy
    setfacl -b directory/copy; show directory/copy
    setfacl -m u::rwx,g::r,o::- directory/copy; show directory/copy
    setfacl -d -m u:65534:rwx,o::r directory; show directory
    umask 077
    echo new > directory/new; show directory/new
    mkdir directory/below; show directory/below
    mkfifo directory/below/pipe; show directory/below/pipe
    ln -s new directory/link
    setfacl -k directory; show directory
    echo later > directory/later; show directory/later
    getfattr -m - directory/new | sort
"#;

#[test]
fn lists_and_modes_follow_each_other_as_on_a_local_file_system() {
    if !rustix::process::geteuid().is_root() || !have("setfacl") || !have("getfattr") {
        return;
    }
    with_volume(|root| {
        // The mountpoint itself is on the local one.
        let local = tempfile::tempdir().unwrap();
        let expected = match std::process::Command::new("setfacl")
            .args(["-m", "u:65534:r"])
            .arg(local.path())
            .status()
        {
            Ok(status) if status.success() => {
                shell(local.path(), "setfacl -b .");
                shell(local.path(), SCRIPT)
            }
            _ => return eprintln!("\n*** SKIPPED: the local file system keeps no access lists\n"),
        };
        assert_eq!(shell(&root, SCRIPT), expected);
    });
}

#[test]
fn the_kernel_obeys_a_list() {
    if !rustix::process::geteuid().is_root() || !have("setfacl") || !have("setpriv") {
        return;
    }
    with_volume(|root| {
        shell(
            &root,
            r#"
            chmod 755 .
            nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
            echo secret > file; chmod 600 file
            ! nobody cat file 2>/dev/null
            setfacl -m u:65534:r file
            test "$(nobody cat file)" = secret
            ! nobody sh -c 'echo more >> file' 2>/dev/null
            chmod g= file
            ! nobody cat file 2>/dev/null
            "#,
        );
    });
}
