//go:build linux

package unix

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"a3os.app/services/discoveryworker/internal/connector/connectortest"
)

// handedOver is what a machine reader hands over of a machine, as it arrives.
func handedOver(t *testing.T, root string) *Snapshot {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root: configuration has to be root's for a machine reader to read it")
	}
	g, err := Gather(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	s, err := g.Read()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	got := &Snapshot{}
	if err := json.Unmarshal(text, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func answering(s *Snapshot) Reader {
	return func(context.Context) (*Snapshot, error) { return s, nil }
}

// A worker that can read nothing but what everybody can finds, with a machine reader, what root finds.
func TestMachineReaderLacksNothing(t *testing.T) {
	files := company()
	whole := lay(t, files)
	for name := range files {
		if name == "/etc/shadow" || strings.HasPrefix(name, "/etc/sudoers") || strings.HasPrefix(name, "/etc/ssh") || strings.Contains(name, "/.ssh/") {
			delete(files, name)
		}
	}
	open := lay(t, files)
	snapshot := handedOver(t, whole)
	want := connectortest.ReadAll(t, New(whole, nil), source(), nil)
	got := connectortest.ReadAll(t, New(open, answering(snapshot)), source(), nil)
	if alone := connectortest.ReadAll(t, New(open, nil), source(), nil); len(alone.Records) == len(want.Records) {
		t.Fatal("the open part of the machine says as much as the whole: this test compares nothing")
	}
	if len(want.Records) != len(got.Records) {
		t.Errorf("%d records by root, %d by a machine reader", len(want.Records), len(got.Records))
	}
	for i := range want.Records {
		if i < len(got.Records) && recordKey(want.Records[i]) != recordKey(got.Records[i]) {
			t.Fatalf("record %d is %v by root, %v by a machine reader", i, want.Records[i], got.Records[i])
		}
	}
	for scope, reasons := range want.Gaps {
		if !slices.Equal(reasons, got.Gaps[scope]) {
			t.Errorf("gaps of %s: %q by root, %q by a machine reader", scope, reasons, got.Gaps[scope])
		}
	}
}

func TestNoPasswordLeavesTheMachineReader(t *testing.T) {
	files := company()
	files["/etc/shadow"] += "broken:$6$s$h\n"
	// What root includes by mistake is not read either.
	files["/etc/sudoers"] += "@include /etc/shadow\n@include /etc/shadow-\n"
	files["/etc/shadow-"] = files["/etc/shadow"]
	text, err := json.Marshal(handedOver(t, lay(t, files)))
	if err != nil {
		t.Fatal(err)
	}
	s := &Snapshot{}
	if err := json.Unmarshal(text, s); err != nil {
		t.Fatal(err)
	}
	for name, c := range s.Read {
		if strings.Contains(string(c.Bytes), "$6$") {
			t.Errorf("%s holds the hash of a password: %s", name, c.Bytes)
		}
	}
	if got := string(s.Read["/etc/shadow"].Bytes); !strings.Contains(got, "ann:set:19000:") || !strings.Contains(got, "bob:!:19000:") || !strings.Contains(got, "open::19000:") {
		t.Errorf("whether passwords are set, locked or empty is not told: %s", got)
	}
}

// What users can do in their homes leads a machine reader nowhere: each trick ends in a gap with its reason, and nothing of the file
// that it was to be led to is in the snapshot.
func TestMachineReaderIsLedNowhere(t *testing.T) {
	const secret = "ssh-ed25519 the-secret-of-somebody-else"
	for name, trick := range map[string]struct {
		play func(t *testing.T, root string)
		want string
	}{
		"a link in place of the keys": {func(t *testing.T, root string) {
			link(t, "/etc/secret", filepath.Join(root, "home/ann/.ssh/authorized_keys"))
		}, "symbolic link"},
		"a link in place of the directory": {func(t *testing.T, root string) {
			must(t, os.RemoveAll(filepath.Join(root, "home/ann/.ssh")))
			link(t, "/etc/private", filepath.Join(root, "home/ann/.ssh"))
		}, "symbolic link"},
		"a link that climbs": {func(t *testing.T, root string) {
			link(t, "../../../etc/secret", filepath.Join(root, "home/ann/.ssh/authorized_keys"))
		}, "symbolic link"},
		"another name of a file": {func(t *testing.T, root string) {
			must(t, os.Link(filepath.Join(root, "etc/secret"), filepath.Join(root, "home/ann/.ssh/authorized_keys")))
		}, "has other names"},
		"a file of somebody else": {func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, "home/ann/.ssh/authorized_keys"), []byte(secret), 0o600))
			must(t, os.Chown(filepath.Join(root, "home/ann/.ssh/authorized_keys"), 4242, 4242))
		}, "belongs neither"},
		"a home of somebody else": {func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, "home/ann/.ssh/authorized_keys"), []byte(secret), 0o600))
			must(t, os.Chown(filepath.Join(root, "home/ann"), 4242, 4242))
		}, "belongs neither"},
		"a pipe": {func(t *testing.T, root string) {
			must(t, syscall.Mkfifo(filepath.Join(root, "home/ann/.ssh/authorized_keys"), 0o600))
		}, "not a regular file"},
		"a directory": {func(t *testing.T, root string) {
			must(t, os.Mkdir(filepath.Join(root, "home/ann/.ssh/authorized_keys"), 0o700))
		}, "not a regular file"},
		"more than anybody needs": {func(t *testing.T, root string) {
			must(t, os.WriteFile(filepath.Join(root, "home/ann/.ssh/authorized_keys"), make([]byte, mostKeys+1), 0o600))
		}, "longer than"},
		"more files than anybody has": {func(t *testing.T, root string) {
			for i := range mostListed + 1 {
				must(t, os.WriteFile(filepath.Join(root, "home/ann/.ssh", strings.Repeat("x", i%200+1)+string(rune('a'+i/200))), nil, 0o600))
			}
		}, "has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			root := lay(t, map[string]string{
				"/etc/passwd": "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n", "/etc/shadow": "", "/etc/group": "",
				"/etc/secret": secret, "/etc/private/authorized_keys": secret, "/home/ann/.ssh/known_hosts": "",
			})
			trick.play(t, root)
			s := handedOver(t, root)
			var reasons []string
			for path, c := range s.Read {
				if strings.Contains(string(c.Bytes), secret) {
					t.Errorf("%s holds what it must not be led to", path)
				}
				if c.Fault != nil && c.Fault.Reason != "" {
					reasons = append(reasons, path+": "+c.Fault.Reason)
				}
			}
			for path, l := range s.Names {
				if l.Fault != nil && l.Fault.Reason != "" {
					reasons = append(reasons, path+": "+l.Fault.Reason)
				}
			}
			if !slices.ContainsFunc(reasons, func(r string) bool { return strings.Contains(r, trick.want) }) {
				t.Errorf("no reason says %q: %q", trick.want, reasons)
			}
		})
	}
}

func TestMachineReaderThatDoesNotAnswerIsAGap(t *testing.T) {
	root := lay(t, company())
	got := connectortest.ReadAll(t, New(root, func(context.Context) (*Snapshot, error) { return nil, os.ErrDeadlineExceeded }), source(), nil)
	for _, scope := range []string{ScopeLogins, ScopeSudoers, ScopeKeys} {
		if !slices.ContainsFunc(got.Gaps[scope], func(r string) bool { return strings.Contains(r, "machine reader did not answer") }) {
			t.Errorf("%s does not say that the machine reader did not answer: %q", scope, got.Gaps[scope])
		}
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	must(t, os.RemoveAll(at))
	must(t, os.Symlink(to, at))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
