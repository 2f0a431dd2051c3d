package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// isolationReport is what `fleet isolation verify -o json` prints.
type isolationReport struct {
	Tenants []struct{ Slug string }
	Walls   []struct {
		Wall                               string
		Attempts, Refused, Holes, Unproven int
	}
	Results []isolationResult
}

type isolationResult struct{ Outcome, Wall, From, At, Attempt, Answer, Control string }

// verifyIsolation runs the proof over acme and globex, and answers its exit code, what it found, and the directory of its files.
func verifyIsolation(t *testing.T) (said, isolationReport, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := shared.command(t.Context(), "fleet", "-o", "json", "isolation", "verify", "--tenant", "acme,globex", "--out", dir)
	if err != nil {
		t.Fatal(err)
	}
	var r isolationReport
	if err := json.Unmarshal([]byte(s.out), &r); err != nil {
		t.Fatalf("%v: %s", err, s)
	}
	return s, r, dir
}

// finds fails the test unless the report names exactly these holes, each by the words that are given.
func (r isolationReport) finds(t *testing.T, s said, holes ...string) {
	t.Helper()
	if s.code != 1 {
		t.Errorf("it exits with %d, and there is a hole", s.code)
	}
	for _, want := range holes {
		found := false
		for _, x := range r.Results {
			found = found || x.Outcome == "hole" && strings.Contains(fmt.Sprintf("%s at %s: %s: %s", x.From, x.At, x.Attempt, x.Answer), want)
		}
		if !found {
			t.Errorf("no hole says %q", want)
		}
	}
	for _, x := range r.Results {
		if x.Outcome != "refused" {
			t.Logf("%s: %s at %s: %s: %s", x.Outcome, x.From, x.At, x.Attempt, x.Answer)
		}
	}
}

// Row O40, and all walls at once: the proof holds on a plane as it is brought up, is signed, and can be verified without the plane.
func TestIsolationIsProvenAndTheProofVerifiesOffline(t *testing.T) {
	s, r, dir := verifyIsolation(t)
	if s.code != 0 {
		for _, x := range r.Results {
			if x.Outcome != "refused" {
				t.Errorf("%s: %s at %s: %s: %s (%s)", x.Outcome, x.From, x.At, x.Attempt, x.Answer, x.Control)
			}
		}
		t.Fatalf("it exits with %d: %s", s.code, s.err)
	}
	// Every wall was tried, and by far more than a handful.
	cases := 0
	for _, w := range r.Walls {
		cases += w.Refused
		if w.Refused == 0 || w.Refused != w.Attempts {
			t.Errorf("wall %s: %+v", w.Wall, w)
		}
	}
	const walls, least = 8, 250
	if len(r.Walls) != walls || cases < least || len(r.Tenants) != 2 {
		t.Errorf("there are %d walls and %d attempts between %v", len(r.Walls), cases, r.Tenants)
	}
	// Siblings try each other's writes and streams too.
	for _, method := range []string{"ScheduleService/ClaimDue", "DeadLetterReportService/ReportDeadLetter", "IngestService/IngestRecords", "SourceService/RetireSource"} {
		tried := slices.ContainsFunc(r.Results, func(x isolationResult) bool { return strings.Contains(x.Attempt, method) })
		if !tried {
			t.Errorf("no sibling tried %s", method)
		}
	}
	if !strings.Contains(s.err, "attempts") {
		t.Errorf("nothing was said on the way: %q", s.err)
	}
	reports, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(reports) != 1 {
		t.Fatal(reports, err)
	}
	check := func(file string, args ...string) said {
		t.Helper()
		s, err := shared.command(t.Context(), "fleet", append([]string{"isolation", "check", file}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	key := filepath.Join(shared.home, "plane", "keys", "proofs.public")
	for _, args := range [][]string{nil, {"--key", key}, {"--key", strings.TrimSpace(read(t, key))}} {
		if s := check(reports[0], args...); s.code != 0 || !strings.Contains(s.out, "Isolated: all") {
			t.Errorf("check %q: %s", args, s)
		}
	}
	text := read(t, reports[0])
	changed := filepath.Join(t.TempDir(), "changed.json")
	i := len(text) / 2
	flipped := byte('A')
	if text[i] == flipped {
		flipped = 'B'
	}
	if err := os.WriteFile(changed, []byte(text[:i]+string(flipped)+text[i+1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := check(changed); s.code != 1 || strings.Contains(s.out, "Isolated") {
		t.Errorf("a changed report: %s", s)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.html"))
	if err != nil || len(pages) != 1 || !strings.Contains(read(t, pages[0]), "Isolated: all") {
		t.Errorf("the page: %v, %v", pages, err)
	}
	t.Attr("row", fmt.Sprintf("O40 %d", cases))
}

// What is open is found and named: the proof isn't one that can't fail.
func TestIsolationProofNamesEachHole(t *testing.T) {
	full(t)
	admin := shared.superuser(t, "postgres", "postgres")
	role := globex().id + "_audit"
	run := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	// Three at once, each at another wall.
	run("GRANT CONNECT ON DATABASE " + quoted(acme().id) + " TO " + quoted(role))
	defer run("REVOKE CONNECT ON DATABASE " + quoted(acme().id) + " FROM " + quoted(role))
	inside := shared.superuser(t, "postgres", acme().id)
	worker := quoted(acme().id + "_worker")
	for _, sql := range []string{"GRANT USAGE ON SCHEMA iam TO " + worker, "GRANT SELECT ON iam.users TO " + worker} {
		if _, err := inside.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, sql := range []string{"REVOKE SELECT ON iam.users FROM " + worker, "REVOKE USAGE ON SCHEMA iam FROM " + worker} {
			if _, err := inside.Exec(t.Context(), sql); err != nil {
				t.Error(err)
			}
		}
	}()
	file := acme().file("keys", "secrets.secret")
	for path := file; path != filepath.Dir(shared.home); path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.Chmod(path, info.Mode()); err != nil {
				t.Error(err)
			}
		}()
		if err := os.Chmod(path, info.Mode()|0o005); err != nil {
			t.Fatal(err)
		}
	}
	s, r, _ := verifyIsolation(t)
	r.finds(t, s,
		"globex (role audit) at database of acme: log in with its own password: logged in",
		"acme (role worker) at database of acme: read every table of every schema but queue: it reads iam.users",
		"globex/discovery at files of acme: open every file of the other set: keys, passwords, certificates, stores: it opens tenants/"+acme().id+"/keys/secrets.secret")
}
