package systemtest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"a3os.app/deploy/sample"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
	iamv1 "a3os.app/proto/gen/go/a3os/iam/v1"
	"a3os.app/proto/gen/go/a3os/iam/v1/iamv1connect"
)

func TestUpPrintsTheAnswer(t *testing.T) {
	out := shared.first.out
	for _, x := range shared.tenants {
		if !regexp.MustCompile(`(?m)^` + x.slug + `\s+` + regexp.QuoteMeta(x.url) + `$`).MatchString(out) {
			t.Errorf("tenant %s at %s is not printed", x.slug, x.url)
		}
	}
	for _, x := range shared.tenants {
		printed := counts(t, out, x.slug)
		for system, want := range x.discovered(t) {
			if printed[system] != want {
				t.Errorf("of %s in %s it is printed %q, and the newest run says %q", system, x.slug, printed[system], want)
			}
		}
		if len(printed) == 0 {
			t.Errorf("nothing is printed of what %s discovered", x.slug)
		}
	}
	q := sample.Questions()[0]
	if !strings.Contains(out, q.Text) {
		t.Errorf("the question %q is not printed", q.Text)
	}
	if path := strings.Join(q.Path, " → ") + " → " + q.Privilege; !strings.Contains(out, path) {
		t.Errorf("the path %q is not printed", path)
	}
	if !strings.Contains(out, "make down") {
		t.Error("how to stop is not printed")
	}
	if t.Failed() {
		t.Log(out)
	}
	if steps := strings.Count(shared.first.err, "✓"); steps < len(shared.tenants) {
		t.Errorf("the steps are not shown as they happen: %s", shared.first.err)
	}
}

// counts are the printed numbers of accounts, groups, entitlements and grants, by system.
func counts(t *testing.T, out, slug string) map[string]string {
	t.Helper()
	printed := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\S+)\s+(\S+)\s+(?:postgres|unix|csv)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+\S.*$`).FindAllStringSubmatch(out, -1) {
		if m[1] == slug {
			printed[m[2]] = strings.Join(m[3:7], " ")
		}
	}
	return printed
}

// discovered are the same numbers of the newest runs, as the API has them.
func (x *tenant) discovered(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	admin := x.admin(t)
	for _, w := range ask(t, client(admin, "", iamv1connect.NewWorkspaceServiceClient).ListWorkspaces, &iamv1.ListWorkspacesRequest{}).GetWorkspaces() {
		if w.GetOwnerUserId() != admin.id {
			continue
		}
		runs := ask(t, client(admin, w.GetId(), discoveryv1connect.NewRunServiceClient).ListRuns, &discoveryv1.ListRunsRequest{}).GetRuns()
		for i := len(runs) - 1; i >= 0; i-- {
			c := runs[i].GetCounts()
			numbers := []string{}
			for _, n := range []int64{c.GetAccounts(), c.GetGroups(), c.GetEntitlements(), c.GetGrants()} {
				numbers = append(numbers, strconv.FormatInt(n, 10))
			}
			out[runs[i].GetIntegrationName()] = strings.Join(numbers, " ")
		}
	}
	return out
}

// Commands that are printed to be tried have to work as they stand.
func TestPrintedCommandsWork(t *testing.T) {
	var lines []string
	for line := range strings.Lines(shared.first.out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "bin/a3 ") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 3 {
		t.Fatalf("there are %d commands to try next and not three: %q", len(lines), lines)
	}
	for i, line := range lines {
		s := shell(t, line)
		if s.code != 0 || strings.TrimSpace(s.out) == "" {
			t.Errorf("%s: %s", line, s)
		}
		if i == 1 && !strings.Contains(s.out, sample.Questions()[0].Path[1]) {
			t.Errorf("%s doesn't show the path: %s", line, s)
		}
	}
}

func TestPrintedCurlWorks(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed, and the line that is printed for it can't be tried")
	}
	found := regexp.MustCompile(`(?m)^\s*(curl .*--resolve .*)$`).FindStringSubmatch(shared.first.out)
	if found == nil || !strings.Contains(found[1], "--cacert") {
		t.Fatalf("no line for curl with --resolve and --cacert is printed:\n%s", shared.first.out)
	}
	if s := shell(t, found[1]); s.code != 0 || !strings.Contains(s.out, acme().id) {
		t.Errorf("%s: %s", found[1], s)
	}
}

// shell runs a line as somebody types it who started the plane here.
func shell(t *testing.T, line string) said {
	t.Helper()
	return shared.shell(t, line)
}

func (p *plane) shell(t *testing.T, line string) said {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Env, cmd.Dir = p.environ, filepath.Dir(programs)
	s, err := finish(cmd)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUpAgainChangesNothing(t *testing.T) {
	before, began := shared.pids(t), files(t, shared.home)
	s, err := shared.command(t.Context(), "fleet", "plane", "up")
	if err != nil || s.code != 0 {
		t.Fatalf("plane up, again: %v %s", err, s)
	}
	if !strings.Contains(s.out, "nothing changed") {
		t.Errorf("it doesn't say that nothing changed: %s", s)
	}
	if strings.Contains(s.err, "✓") {
		t.Errorf("it did something: %s", s.err)
	}
	if after := shared.pids(t); !maps.Equal(before, after) {
		t.Errorf("processes were %v and are %v", before, after)
	}
	if after := files(t, shared.home); !maps.Equal(began, after) {
		t.Errorf("files were %v and are %v", began, after)
	}
}

// files are a plane's own files, by size: not what its servers keep, nor what its processes write as they run.
func files(t *testing.T, home string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went while it was looked for
		}
		if err != nil {
			return err
		}
		switch rel, _ := filepath.Rel(home, path); {
		case rel == "postgres", rel == "sample-postgres", rel == "log", rel == "profiles":
			return fs.SkipDir
		case d.Type().IsRegular():
			info, err := d.Info()
			if err != nil {
				return err
			}
			out[rel] = info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSecretsOnDiskAreTheirOwnersAlone(t *testing.T) {
	for _, dir := range shared.dirs() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // PostgreSQL removes files as it works
			}
			if err != nil {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			const others = 0o077
			open := info.Mode().Perm() & others
			rel, _ := filepath.Rel(dir, path)
			switch {
			case rel == ".", d.Type()&os.ModeSymlink != 0:
			case path == filepath.Join(shared.home, "postgres"), path == filepath.Join(shared.home, "sample-postgres"):
				// PostgreSQL's own user walks through here to its data.
				if open&^0o011 != 0 {
					t.Errorf("%s has mode %s", path, info.Mode())
				}
			case open&^openTo(rel, d) != 0:
				t.Errorf("%s has mode %s", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// openTo are the bits that a file of the plane may have for others than its owner. Where each process is a user of its own, all of them
// walk through directories, without seeing what is in them, and read the program and certificates of authorities; a store's group is
// those who share it, and nobody besides them is in it.
func openTo(path string, d fs.DirEntry) fs.FileMode {
	switch {
	case os.Geteuid() != 0:
		return 0
	case strings.Contains(path, "/stores/") && d.IsDir():
		return 0o051
	case strings.Contains(path, "/stores/"):
		return 0o040
	case d.IsDir():
		// A component looks into its own directory as its group.
		return 0o051
	case strings.HasSuffix(path, "pki/roots.pem"):
		return 0o044
	case strings.Contains(path, "/components/") && strings.HasSuffix(path, "/licence"):
		// It belongs to root, and its component reads it as its group.
		return 0o040
	case strings.HasSuffix(path, "/machine/socket"):
		// Whoever connects is known by the kernel's word, and all but one user are turned away (SO_PEERCRED).
		return 0o066
	case strings.HasPrefix(path, "releases/"):
		return 0o055
	}
	return 0
}
