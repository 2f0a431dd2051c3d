package local

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"a3os.app/tools/fleet/internal/supervise"
)

// A process may give what it owns to any group that it is in. That must not have root walk into what the process put there.
func TestTreeOfAProcessIsNotWalkedWhateverGroupItHas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("that a process's tree is not walked is not tested: only root gives files to others")
	}
	const process, group, another = 4242, 4243, 4244
	root := filepath.Join(t.TempDir(), "state")
	inside := filepath.Join(root, "shadow")
	if err := errors.Join(os.Mkdir(root, 0o700), os.WriteFile(inside, nil, 0o600), os.Chown(root, process, another)); err != nil {
		t.Fatal(err)
	}
	owners := func(path string) (uid, gid uint32) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatal("no owner is told")
		}
		return st.Uid, st.Gid
	}
	if err := giveTree(root, &supervise.User{UID: process, GID: group}, 0o700, 0o600); err != nil {
		t.Fatal(err)
	}
	if uid, gid := owners(root); uid != process || gid != group {
		t.Errorf("the tree's root belongs to %d:%d", uid, gid)
	}
	if uid, gid := owners(inside); uid != 0 || gid != 0 {
		t.Errorf("root walked in and gave a file to %d:%d", uid, gid)
	}
	// One that is given for the first time is given whole.
	if err := errors.Join(os.Chown(root, 0, 0), giveTree(root, &supervise.User{UID: process, GID: group}, 0o700, 0o600)); err != nil {
		t.Fatal(err)
	}
	if uid, gid := owners(inside); uid != process || gid != group {
		t.Errorf("a file of a tree that was given belongs to %d:%d", uid, gid)
	}
}

// A process that works on one tenant is told what this machine can do, and does not look: kept to some files, it can read its own rights in
// /proc only sometimes, and would start the tenant's processes as its own user where it can't.
func TestProcessThatGotThePlatformDelegatedIsToldWhatTheMachineCan(t *testing.T) {
	for _, can := range []bool{true, false} {
		p := &Platform{delegated: true, separated: can, readsMachine: can}
		if p.Separated() != can || p.canReadMachine() != can {
			t.Errorf("told %v, it goes by %v and %v", can, p.Separated(), p.canReadMachine())
		}
	}
}
