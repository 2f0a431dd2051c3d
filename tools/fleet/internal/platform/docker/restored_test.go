package docker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// made is a backup that was made, and restored what came of a restore.
type made struct {
	Name     string
	Dir      string
	Verified time.Time
	Rows     int64
}

type restored struct {
	LostNS      int64     `json:"lost_ns"`
	LostEntries int64     `json:"lost_entries"`
	TotalNS     int64     `json:"total_ns"`
	Verified    time.Time `json:"verified"`
	Serves      bool      `json:"serves"`
}

// ownServerIsApart sees that a tenant's database is in a container of its own, in its own network, and in no server that others share.
func (p *plane) ownServerIsApart(t *testing.T, slug string) {
	t.Helper()
	id := p.tenant(t, slug).GetTenant().GetId()
	own := ""
	for name := range p.containers(t) {
		if strings.HasSuffix(name, id+"-postgres") {
			own = name
		}
	}
	if own == "" {
		t.Fatalf("%s has no server of its own: %v", slug, p.containers(t))
	}
	networks := strings.Fields(run(t, "docker", "inspect", "--format", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", own))
	if len(networks) != 1 || !strings.HasSuffix(networks[0], id) {
		t.Errorf("the server of %s stands in the networks %v", slug, networks)
	}
}

// backup makes one of a tenant, or of the plane, which is restored for trial.
func (p *plane) backup(t *testing.T, args ...string) map[string]made {
	t.Helper()
	var all []struct {
		made
		Slug string
	}
	p.json(t, &all, append([]string{"backup"}, args...)...)
	out := map[string]made{}
	for _, m := range all {
		if out[m.Slug] = m.made; m.Verified.IsZero() || m.Rows == 0 {
			t.Errorf("the backup of %s was not restored for trial: %+v", m.Slug, m)
		}
	}
	return out
}

// json reads what a command says with -o json.
func (p *plane) json(t *testing.T, into any, args ...string) {
	t.Helper()
	var out, said bytes.Buffer
	cmd := p.command(append([]string{"-o", "json"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err == nil {
		err = json.Unmarshal(out.Bytes(), into)
	}
	if err != nil {
		t.Fatalf("fleet %v: %v: %s%s", args, err, out.String(), said.String())
	}
}

// restored puts a tenant that serves back to a backup: what was done since is gone, what was there before is there.
func (p *plane) restored(t *testing.T, slug string) {
	t.Helper()
	p.admit(t, slug)
	p.a3(t, slug, "workspace", "create", "before-the-backup")
	backup := p.backup(t, "--tenant", slug)[slug]
	from := backup.Name
	p.a3(t, slug, "workspace", "create", "after-the-backup")
	p.witnessed(t, slug, backup)
	args := []string{"restore", "--from", from, "--to", slug, "--reason", "the story goes on"}
	if out, err := p.command(args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "--replace") {
		t.Errorf("what runs was given up without a word: %v: %s", err, out)
	}
	var done restored
	p.json(t, &done, append(args, "--replace")...)
	if !done.Serves || done.LostNS <= 0 || done.LostEntries <= 0 || done.TotalNS <= 0 || done.Verified.IsZero() {
		t.Errorf("a restore says: %+v", done)
	}
	t.Logf("%s: restored in %s, %s and %d entries lost", slug, time.Duration(done.TotalNS), time.Duration(done.LostNS), done.LostEntries)
	p.admit(t, slug)
	if list := p.a3(t, slug, "workspace", "list"); !strings.Contains(list, "before-the-backup") || strings.Contains(list, "after-the-backup") {
		t.Errorf("after the restore its workspaces are:\n%s", list)
	}
}

// witnessed waits until the registry has been handed a checkpoint of the tenant's log that is longer than that of a backup.
func (p *plane) witnessed(t *testing.T, slug string, b made) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var signed struct{ Payload []byte }
	var manifest struct{ Checkpoint string }
	if err := errors.Join(json.Unmarshal(text, &signed), json.Unmarshal(signed.Payload, &manifest)); err != nil {
		t.Fatal(err)
	}
	size := func(checkpoint string) (n int64) {
		if _, rest, ok := strings.Cut(checkpoint, "\n"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			n, _ = strconv.ParseInt(line, 10, 64)
		}
		return n
	}
	until := time.Now().Add(time.Minute)
	for size(p.tenant(t, slug).GetCheckpoint()) <= size(manifest.Checkpoint) {
		if time.Now().After(until) {
			t.Fatalf("the registry holds no longer log of %s than the backup's %d entries", slug, size(manifest.Checkpoint))
		}
		<-time.After(time.Second)
	}
}

// restoredAsleep restores a tenant that is suspended, which it stays.
func (p *plane) restoredAsleep(t *testing.T, slug string) {
	t.Helper()
	p.does(t, "suspend", slug)
	from := p.backup(t, "--tenant", slug)[slug].Name
	var done restored
	p.json(t, &done, "restore", "--from", from, "--to", slug, "--reason", "the story goes on")
	if done.Serves || p.answers(t, slug) != http.StatusNotFound {
		t.Errorf("a restore woke the suspended tenant: %+v", done)
	}
	p.does(t, "resume", slug)
	if got := p.answers(t, slug); got != http.StatusOK {
		t.Errorf("restored and resumed it answers %d", got)
	}
}

// registryRestored puts the plane's own registry back, while tenants are served.
func (p *plane) registryRestored(t *testing.T) {
	t.Helper()
	from := p.backup(t, "--all")["plane"].Name
	p.fleet("tenant", "label", "globex", "after=the-backup")
	p.fleet("restore", "--from", from, "--to", "plane", "--replace", "--reason", "the story goes on")
	globex := p.tenant(t, "globex").GetTenant()
	if _, there := globex.GetLabels()["after"]; there {
		t.Errorf("after the restore the registry has what was written after the backup: %v", globex)
	}
	if got := p.answers(t, "globex"); got != http.StatusOK {
		t.Errorf("with the registry restored it answers %d", got)
	}
}

// admit has the tenant's admin sign in anew, in a profile of the tenant's name.
func (p *plane) admit(t *testing.T, slug string) {
	t.Helper()
	said := p.fleet("tenant", "recover-admin", slug, "--reason", "the story goes on")
	_, code, ok := strings.Cut(said, "--setup-code ")
	if !ok {
		t.Fatalf("recover-admin says: %s", said)
	}
	at, err := url.Parse(p.urlOf(t, slug))
	if err != nil {
		t.Fatal(err)
	}
	p.a3(t, slug, "login", "--url", at.String(), "--ca-cert", filepath.Join(p.home, "web", "ca.pem"), "--dial", "127.0.0.1:"+at.Port(), "--setup-code", strings.Fields(code)[0])
}

func (p *plane) a3(t *testing.T, profile string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(p.bin, "a3"), append([]string{"--profile", profile}, args...)...)
	cmd.Env = p.command().Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("a3 %v: %v: %s", args, err, out)
	}
	return string(out)
}

// urlOf is where a tenant's people reach it.
func (p *plane) urlOf(t *testing.T, slug string) string {
	t.Helper()
	var status struct{ Tenants []struct{ Slug, URL string } }
	p.json(t, &status, "plane", "status")
	for _, x := range status.Tenants {
		if x.Slug == slug {
			return x.URL
		}
	}
	t.Fatalf("plane status knows no %s: %+v", slug, status)
	return ""
}
