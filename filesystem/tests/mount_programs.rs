//! The programs that a drive has to please, run on a real mount: archives, version control, a database, a compiler's
//! habits. Each found a mistake in some FUSE file system once.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{have, shell, with_mount};

/// A small source tree with everything a tree can have.
fn make_tree(at: &Path) {
    shell(
        at,
        r#"
        mkdir -p tree/src/deep/er tree/empty
        for i in $(seq 200); do echo "line $i" > tree/src/file$i.txt; done
        head -c 300000 /dev/urandom > tree/src/deep/random.bin
        ln -s ../file1.txt tree/src/deep/link
        ln tree/src/file2.txt tree/src/deep/er/hard
        printf '#!/bin/sh\necho ran\n' > tree/run.sh; chmod 755 tree/run.sh
        truncate -s 10M tree/sparse
        printf "odd" > "tree/a name with spaces, \$igns and ünïcode"
        touch -d '2001-02-03 04:05:06' tree/src/file3.txt
        chmod 600 tree/src/file4.txt
        "#,
    );
}

/// Calls `story` with a mount that has a symlink `original` to such a tree outside.
macro_rules! with_tree {
    ($story:expr) => {
        with_mount(|root| {
            let outside = tempfile::tempdir().unwrap();
            make_tree(outside.path());
            std::os::unix::fs::symlink(outside.path().join("tree"), root.join("original")).unwrap();
            let story: fn(PathBuf) = $story;
            story(root);
        })
    };
}

#[test]
fn cp_mv_find_diff_and_rm() {
    with_tree!(|root| {
        shell(
            &root,
            r#"
            cp -a original/. copy
            diff -r original/ copy
            test "$(cd copy; find . | wc -l)" = "$(cd original/; find . | wc -l)"
            test "$(stat -c '%a %Y' copy/src/file3.txt)" = "$(stat -c '%a %Y' original/src/file3.txt)"
            test $(stat -c %h copy/src/file2.txt) = 2
            test "$(copy/run.sh)" = ran
            mkdir other; mv copy/src other/moved
            diff -r original/src other/moved
            cp -a other/moved back; cmp back/deep/random.bin original/src/deep/random.bin
            rm -rf other copy back
            test "$(ls)" = original
            "#,
        );
    });
}

#[test]
fn tar_packs_and_unpacks() {
    with_tree!(|root| {
        shell(
            &root,
            r#"
            tar -C original/ -cf in.tar .
            mkdir out; tar -C out -xf in.tar
            diff -r original/ out
            tar -C out -cf again.tar . ; tar -df again.tar -C out
            test $(stat -c %b out/sparse) -lt 30000
            "#,
        );
    });
}

#[test]
fn rsync_copies_and_finds_nothing_left_to_do() {
    if !have("rsync") {
        return;
    }
    with_tree!(|root| {
        shell(
            &root,
            r#"
            rsync -aHS original/ copy
            diff -r original/ copy
            test -z "$(rsync -aHi --delete original/ copy)"
            echo change > copy/src/file9.txt
            test -n "$(rsync -aHic --delete original/ copy)"
            diff -r original/ copy
            "#,
        );
    });
}

#[test]
fn git_commits_clones_and_sees_a_clean_tree() {
    if !have("git") {
        return;
    }
    with_tree!(|root| {
        shell(
            &root,
            r#"
            git config --global user.email a@example.org; git config --global user.name A
            cp -a original/. work; cd work; rmdir empty # git keeps none
            git init -q .; git add -A; git commit -qm one
            test -z "$(git status --porcelain)"
            echo more >> src/file1.txt; test "$(git status --porcelain)" = " M src/file1.txt"
            git commit -qam two; git gc -q; git fsck
            cd ..; git clone -q work clone; cd clone
            test -z "$(git status --porcelain)"; git log --oneline | wc -l | grep -q 2
            git checkout -q HEAD~1; git checkout -q -; git pull -q
            diff -r --exclude .git ../work .
            "#,
        );
    });
}

#[test]
fn sqlite_commits_in_each_journal_mode() {
    if !have("sqlite3") {
        return;
    }
    with_mount(|root| {
        // WAL maps its index as shared memory.
        for mode in ["delete", "wal", "truncate"] {
            let script = format!(
                r#"
                sqlite3 {mode}.db "pragma journal_mode={mode}; create table t(x);" > /dev/null
                for i in 1 2 3 4 5; do sqlite3 {mode}.db "insert into t values($i)"; done
                sqlite3 {mode}.db "with recursive c(x) as (select 1 union all select x+1 from c where x<2000) \
                    insert into t select x from c; pragma integrity_check; select count(*) from t" | tr '\n' ' '
                "#
            );
            assert_eq!(shell(&root, &script), "ok 2005 ", "{mode}");
        }
    });
}

#[test]
fn a_mapped_file_shares_its_pages_with_reads_and_writes() {
    if !have("python3") {
        return;
    }
    with_mount(|root| {
        fs::write(root.join("map.py"), MAP).unwrap();
        shell(&root, "python3 map.py; echo 3 > /proc/sys/vm/drop_caches || true; python3 map.py again");
    });
}

const MAP: &str = r#"
import mmap, os, sys
if len(sys.argv) == 1:
    with open("mapped", "w+b") as f:
        f.truncate(1 << 20)
        with mmap.mmap(f.fileno(), 1 << 20) as m:
            for i in range(0, 1 << 20, 4096): m[i:i+4] = (i).to_bytes(4, "little")
            f.seek(8192); assert f.read(4) == (8192).to_bytes(4, "little")
            os.pwrite(f.fileno(), b"written", 100); assert m[100:107] == b"written"
            m.flush()
        with mmap.mmap(f.fileno(), 1 << 20, flags=mmap.MAP_PRIVATE) as m: m[0:7] = b"private"
with open("mapped", "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
    assert m[100:107] == b"written" and m[0:4] == bytes(4)
    assert all(m[i:i+4] == (i).to_bytes(4, "little") for i in range(0, 1 << 20, 4096))
"#;

#[test]
fn make_and_a_compiler_see_times_that_order_their_steps() {
    if !have("gcc") || !have("make") {
        return;
    }
    with_mount(|root| {
        fs::write(root.join("main.c"), "#include \"a.h\"\nint main(void) { return A; }\n").unwrap();
        fs::write(root.join("a.h"), "#define A 0\n").unwrap();
        fs::write(root.join("Makefile"), "main: main.o\n\tgcc -o $@ $<\nmain.o: main.c a.h\n\tgcc -c $<\n")
            .unwrap();
        shell(
            &root,
            "make -s; ./main; make -q; sleep 0.01; echo '#define A 3' > a.h; ! make -q; make -s; ./main || test $? = 3",
        );
    });
}
