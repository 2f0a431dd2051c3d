package systemtest

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A tenant that leaves takes everything along, the rows of all workspaces, and nothing of it is found afterwards: not its words in any
// file of the plane, those of the database server that others use too included, nor its id in a name. What can't be destroyed alone is named.
func TestNothingIsFoundOfATenantThatLeft(t *testing.T) {
	full(t)
	const slug, word = "departing", "zanzibarquartz"
	shared.apply(t, shared.plan(t, provision, slug, releaseOf(t, programs)))
	id := shared.idOf(t, slug)
	s := shared.fleet(t, "tenant", "recover-admin", slug, "--reason", "its first admin signs in")
	_, code, ok := strings.Cut(strings.TrimSpace(s.err), "--setup-code ")
	if !ok {
		t.Fatalf("recover-admin: %s", s)
	}
	admin := slug + "-admin"
	shared.a3(t, admin, "login", "--url", fmt.Sprintf("https://%s.localhost:%d", slug, shared.port), "--ca-cert", filepath.Join(shared.home, "web", "ca.pem"),
		"--dial", shared.address(), "--setup-code", strings.Fields(code)[0])
	for _, who := range []string{"one", "two"} {
		shared.a3(t, admin, "user", "invite", who+"@"+word+".example")
		shared.a3(t, admin, "workspace", "create", word+"-"+who)
	}
	shared.backUp(t, slug)
	if holds := found(t, shared.home, word); len(holds) == 0 {
		t.Fatal("the word is in no file before the tenant leaves: the search finds nothing anywhere")
	}

	shared.apply(t, shared.plan(t, offboard, slug, ""))
	told := shared.fleet(t, "operation", "list", "--tenant", slug)
	shown := shared.fleet(t, "operation", "show", regexp.MustCompile(`opr_[0-9a-z]{26}`).FindString(told.out))
	for _, place := range []string{"registry's history", "logs", "write-ahead log"} {
		if !strings.Contains(shown.out, place) {
			t.Errorf("that something stays in the %s is not said: %s%s", place, told, shown)
		}
	}
	if got := shared.hostAnswers(t, slug); got != http.StatusNotFound {
		t.Errorf("its host answers %d", got)
	}

	exports, err := filepath.Glob(filepath.Join(shared.home, "*", "export-"+slug+"-*"))
	if err != nil || len(exports) != 1 {
		t.Fatalf("its export: %v %v", exports, err)
	}
	dump, err := os.ReadFile(filepath.Join(exports[0], "database.sql"))
	if err != nil {
		t.Fatal(err)
	}
	for _, theirs := range []string{"one@" + word, "two@" + word, word + "-one", word + "-two", "iam.user.invited"} {
		if !bytes.Contains(dump, []byte(theirs)) {
			t.Errorf("%q is not in what the tenant takes along", theirs)
		}
	}
	if err := os.RemoveAll(exports[0]); err != nil {
		t.Fatal(err)
	}

	// Pages of a dropped database leave the server's files with a checkpoint; its log of writes is one of the places named above.
	if _, err := shared.superuser(t, "postgres", "postgres").Exec(t.Context(), "CHECKPOINT"); err != nil {
		t.Fatal(err)
	}
	for _, file := range found(t, shared.home, word) {
		if !strings.Contains(file, "/pg_wal/") {
			t.Errorf("%s still holds a word of the tenant's", file)
		}
	}
	err = filepath.WalkDir(shared.home, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), id) {
			t.Errorf("%s is still there", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// found are the files below a directory that hold a word.
func found(t *testing.T, dir, word string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // what is gone meanwhile holds nothing
		}
		content, err := os.ReadFile(path)
		if err == nil && bytes.Contains(content, []byte(word)) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
