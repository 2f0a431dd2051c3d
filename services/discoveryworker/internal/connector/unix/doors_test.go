package unix

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"a3os.app/services/discoveryworker/internal/connector/connectortest"
)

// TestWhoMayTellARootDaemonWhatToDoComesByRoot listens at real sockets with real owners and modes.
func TestWhoMayTellARootDaemonWhatToDoComesByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of root's")
	}
	for name, tc := range map[string]struct {
		uid, gid  int
		mode, dir os.FileMode
		ops, all  bool
	}{
		"by the group":               {0, 2000, 0o660, 0o755, true, false},
		"by anyone":                  {0, 0, 0o666, 0o755, true, true},
		"by its owner alone":         {0, 2000, 0o600, 0o755, false, false},
		"read by the group":          {0, 2000, 0o640, 0o755, false, false},
		"not root's":                 {1000, 2000, 0o660, 0o755, false, false},
		"behind a closed directory":  {0, 2000, 0o666, 0o700, false, false},
		"of the group root":          {0, 0, 0o660, 0o755, false, false},
		"behind the group's own one": {0, 2000, 0o660, 0o710, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			files := company()
			for _, rules := range []string{"/etc/sudoers.d/10-cy", "/etc/sudoers.d/20-robot", "/home/db/.ssh/id_ed25519", "/home/db/.ssh/id_ed25519.pub"} {
				delete(files, rules)
			}
			files["/etc/sudoers"] = "Defaults env_reset\n"
			files["/etc/group"] += "docker:x:2001:cy\n"
			root := lay(t, files)
			v := newView(t, connectortest.ReadAll(t, New(root, nil), source(), nil).Records)
			if holds(v.acting["bob"], typeHost, "box", entRoot) || holds(v.acting["cy"], typeHost, "box", entRoot) {
				t.Fatal("without a socket bob or cy comes by root")
			}
			dir := filepath.Join(root, "run")
			check(t, os.Mkdir(dir, 0o755))
			socket := filepath.Join(dir, "docker.sock")
			// A path of a socket is short: it is made elsewhere and moved.
			short := filepath.Join(shortDir(t), "s")
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
			check(t, err)
			defer l.Close()
			l.SetUnlinkOnClose(false)
			check(t, os.Rename(short, socket))
			check(t, os.Chown(socket, tc.uid, tc.gid))
			check(t, os.Chmod(socket, tc.mode))
			check(t, os.Chown(dir, 0, 2000))
			check(t, os.Chmod(dir, tc.dir))
			found := connectortest.ReadAll(t, New(root, nil), source(), nil)
			v = newView(t, found.Records)
			if got := holds(v.acting["bob"], typeHost, "box", entRoot); got != tc.ops {
				t.Errorf("bob, who is in ops, comes by root: %t, want %t", got, tc.ops)
			}
			if got := holds(v.acting["open"], typeHost, "box", entRoot); got != tc.all {
				t.Errorf("open, who is in no group of note, comes by root: %t, want %t", got, tc.all)
			}
		})
	}
}

func TestAGroupWhoseDaemonIsAwayIsAGap(t *testing.T) {
	files := company()
	files["/etc/group"] += "docker:x:2001:cy\nlxd:x:2002:\n"
	found := connectortest.ReadAll(t, New(lay(t, files), nil), source(), nil)
	gaps := strings.Join(found.Gaps[ScopeGroups], "\n")
	if !strings.Contains(gaps, "the group docker has members, who come by root when docker runs") || strings.Contains(gaps, "lxd") {
		t.Errorf("gaps of groups are %q", gaps)
	}
}

// TestProgramsThatWriteAnyFileAreTheTargetsPower lets sudo run editors and interpreters with any arguments, and with given ones.
func TestProgramsThatWriteAnyFileAreTheTargetsPower(t *testing.T) {
	for rule, want := range map[string]bool{
		"cy ALL = /usr/bin/vim":                      true,
		"cy ALL = NOEXEC: /usr/bin/python3.11":       true,
		"cy ALL = (db) /usr/bin/tee":                 false, // db's power, not root's
		"cy ALL = /usr/bin/vim /etc/motd":            false,
		"cy ALL = /usr/bin/vimtutor":                 false,
		"cy ALL = /usr/bin/id":                       false,
		"cy ALL = /usr/bin/cp, !/usr/bin/cp":         false,
		"cy ALL = /usr/bin/tee \"\"":                 false,
		"cy ALL = NOPASSWD: /usr/bin/id, /bin/rsync": true,
	} {
		files := company()
		files["/etc/sudoers"] = "Defaults env_reset\n" + rule + "\n"
		v := newView(t, connectortest.ReadAll(t, New(lay(t, files), nil), source(), nil).Records)
		if got := holds(v.acting["cy"], typeHost, "box", entRoot); got != want {
			t.Errorf("%s: cy comes by root: %t, want %t", rule, got, want)
		}
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "a3")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
