package docker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgserver"
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
	CopyOf      string    `json:"copy_of"`
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

// copied makes a tenant that is a copy of another by a backup of that one: both answer, each with a whole log of its own, and of the model neither a container nor
// what is in it is another than before.
func (p *plane) copied(t *testing.T, slug, of string) {
	t.Helper()
	id := p.tenant(t, of).GetTenant().GetId()
	model := func() map[string]string {
		out := p.containers(t)
		maps.DeleteFunc(out, func(name, _ string) bool { return !strings.Contains(name, id) })
		return out
	}
	from := p.backup(t, "--tenant", of)[of].Name
	p.a3(t, of, "workspace", "create", "after-the-copys-backup")
	before, workspaces := model(), p.a3(t, of, "workspace", "list")
	// What it is a copy of may be older than what it runs, and not newer.
	release, _, _ := strings.Cut(p.tenant(t, of).GetServiceSet().GetRelease(), "@")
	p.does(t, "provision", slug, "--copy-of", of, "--release", release)
	copied := p.tenant(t, slug).GetTenant()
	if copied.GetCopyOf() != id {
		t.Errorf("the registry has %s as a copy of %q", slug, copied.GetCopyOf())
	}
	p.refuses(t, "the backup is refused", "restore", "--from", from, "--to", "globex", "--replace", "--reason", "the story goes on")
	var done restored
	p.json(t, &done, "restore", "--from", from, "--to", slug, "--replace", "--reason", "the story goes on")
	if !done.Serves || done.Verified.IsZero() || done.CopyOf != of {
		t.Errorf("a restore to a copy says: %+v", done)
	}
	p.admit(t, slug, "--admin", "admin@"+of+".example")
	for _, x := range []struct{ slug, id string }{{of, id}, {slug, copied.GetId()}} {
		if got := p.answers(t, x.slug); got != http.StatusOK {
			t.Errorf("%s answers %d", x.slug, got)
		}
		if said := p.a3(t, x.slug, "audit", "verify"); !strings.Contains(said, "whole: ") || !strings.Contains(said, x.id) {
			t.Errorf("the log of %s: %s", x.slug, said)
		}
	}
	if list := p.a3(t, slug, "workspace", "list"); !strings.Contains(list, "before-the-backup") || strings.Contains(list, "after-the-copys-backup") {
		t.Errorf("the copy has the workspaces\n%s", list)
	}
	if now := model(); !maps.Equal(before, now) || len(now) == 0 {
		t.Errorf("containers of %s were %v and are %v", of, before, now)
	}
	if list := p.a3(t, of, "workspace", "list"); list != workspaces {
		t.Errorf("%s had the workspaces\n%s\nand has\n%s", of, workspaces, list)
	}
	// Its own from now on: what it hands the registry is witnessed, and its next backup is one of its own.
	again := p.backup(t, "--tenant", slug)[slug]
	p.a3(t, slug, "workspace", "create", "the-copys-own")
	p.witnessed(t, slug, again)
	if _, holes, code := p.isolation(); code != 0 {
		t.Errorf("the proof finds, of a plane with a copy:\n%s", strings.Join(holes, "\n"))
	}
}

// registryRestored puts the plane's own registry back, while tenants are served.
func (p *plane) registryRestored(t *testing.T) {
	t.Helper()
	from := p.backup(t, "--all")["plane"].Name
	p.fleet("tenant", "label", "globex", "after=the-backup")
	p.fleet("tenant", "create", "late")
	p.fleet("tenant", "create", "asleep", "--tier", "dedicated")
	p.does(t, "suspend", "asleep")
	p.fleet("restore", "--from", from, "--to", "plane", "--replace", "--reason", "the story goes on")
	globex := p.tenant(t, "globex").GetTenant()
	if _, there := globex.GetLabels()["after"]; there {
		t.Errorf("after the restore the registry has what was written after the backup: %v", globex)
	}
	if got := p.answers(t, "globex"); got != http.StatusOK {
		t.Errorf("with the registry restored it answers %d", got)
	}
	p.adopted(t, "late", "asleep")
}

// adopted makes tenants known again that came after the registry's backup, running or stopped, and touches none of their containers.
func (p *plane) adopted(t *testing.T, slugs ...string) {
	t.Helper()
	before := p.containers(t)
	for _, slug := range slugs {
		if out, err := p.command("tenant", "create", slug).CombinedOutput(); err == nil || !strings.Contains(string(out), "fleet tenant adopt "+slug) {
			t.Errorf("another tenant was made in the place of %s, whose set is here: %v: %s", slug, err, out)
		}
		t.Log(p.fleet("tenant", "adopt", slug, "--reason", "Case 4711: it came after the backup"))
	}
	if now := p.containers(t); !maps.Equal(before, now) {
		t.Errorf("adopting touched containers: they were %v and are %v", before, now)
	}
	for _, slug := range slugs {
		p.does(t, "resume", slug)
		if got := p.answers(t, slug); got != http.StatusOK {
			t.Errorf("adopted and resumed %s answers %d", slug, got)
		}
	}
}

// outgrows has a session of a tenant's own server want more memory than the tenant's share: that one is ended, the tenant is served again, and
// no container of a neighbour is refused or made anew meanwhile.
func (p *plane) outgrows(t *testing.T, slug, neighbour string) {
	t.Helper()
	id := p.tenant(t, slug).GetTenant().GetId()
	before, own := p.containers(t), ""
	for name := range before {
		if strings.HasSuffix(name, id+"-postgres") {
			own = name
		}
	}
	const share = "1073741824"
	told := strings.Fields(run(t, "docker", "inspect", "--format", "{{.HostConfig.Memory}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", own))
	if told[0] != share {
		t.Errorf("its server may hold %s octets of memory, want %s", told[0], share)
	}
	dir, err := pgserver.DirFor(filepath.Join(p.home, "postgres-"+id), "")
	if err != nil {
		t.Fatal(err)
	}
	password, err := os.ReadFile(filepath.Join(dir, "superuser.password"))
	if err != nil {
		t.Fatal(err)
	}
	at := url.URL{Scheme: "postgres", User: url.UserPassword(pgserver.Superuser, strings.TrimSpace(string(password))), Host: net.JoinHostPort(told[1], "5432"), Path: "/postgres", RawQuery: "sslmode=disable"}
	conn, err := pgx.Connect(t.Context(), at.String())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT array_agg(repeat('x', 50000000)) FROM generate_series(1, 40)")
		ended <- err
	}()
	for asked := 0; ; asked++ {
		if got := p.answers(t, neighbour); got != http.StatusOK {
			t.Errorf("meanwhile %s answers %d", neighbour, got)
		}
		select {
		case err = <-ended:
		default:
			continue
		}
		t.Logf("%s was asked %d times meanwhile", neighbour, asked+1)
		break
	}
	if said := run(t, "sh", "-c", "docker logs "+own+" 2>&1"); err == nil || !conn.IsClosed() || !strings.Contains(said, "terminated by signal 9") {
		t.Errorf("a session that wanted twice its tenant's share: %v, and its server says:\n%s", err, said)
	}
	for until := time.Now().Add(time.Minute); p.answers(t, slug) != http.StatusOK; {
		if time.Now().After(until) {
			t.Fatalf("after it outgrew its server %s is not served", slug)
		}
	}
	now := p.containers(t)
	if maps.DeleteFunc(before, func(name, _ string) bool { return strings.Contains(name, id) }); len(before) == 0 {
		t.Fatal("it has no neighbours")
	}
	for name, container := range before {
		if now[name] != container {
			t.Errorf("%s was made anew", name)
		}
	}
}

// admit has the tenant's admin sign in anew, in a profile of the tenant's name.
func (p *plane) admit(t *testing.T, slug string, more ...string) {
	t.Helper()
	said := p.fleet(append([]string{"tenant", "recover-admin", slug, "--reason", "the story goes on"}, more...)...)
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
