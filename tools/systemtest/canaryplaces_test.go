package systemtest

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// collect finds the plane's own secrets in the files they rest in.
func (c *canaries) collect(t *testing.T, p *plane) {
	t.Helper()
	for _, root := range p.dirs() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if d != nil && d.Name() == "data" {
					return fs.SkipDir
				}
				return err
			}
			switch filepath.Ext(path) {
			case ".secret", ".password":
				c.keep(read(t, path), path)
			case ".url":
				u, err := url.Parse(strings.TrimSpace(read(t, path)))
				if err != nil {
					return fmt.Errorf("%s holds no URL", path)
				}
				password, _ := u.User.Password()
				c.keep(password, path)
			case ".pem":
				for rest := []byte(read(t, path)); ; {
					var block *pem.Block
					if block, rest = pem.Decode(rest); block == nil {
						break
					}
					if strings.HasSuffix(block.Type, "PRIVATE KEY") {
						c.keep(string(block.Bytes[len(block.Bytes)-48:]), path)
						c.keep(strings.Split(string(pem.EncodeToMemory(block)), "\n")[1], path)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	const atLeast = 30
	if len(c.live) < atLeast {
		t.Errorf("only %d secrets were found in the plane's files", len(c.live))
	}
}

// whileTheDatabaseDies calls while PostgreSQL is killed.
func (c *canaries) whileTheDatabaseDies(t *testing.T, p *plane, x *tenant, token string) {
	t.Helper()
	call := through(t, x).bearer(token)
	m := methodNamed(t, "/a3os.integrations.v1.IntegrationWriteService/CreateIntegration")
	var calling sync.WaitGroup
	stop := make(chan struct{})
	bodies := make(chan string)
	for range 4 {
		calling.Go(func() {
			for body := range bodies {
				_, _ = call.with("Idempotency-Key", name("canary")).try(t, m.path(), "application/json", []byte(body))
			}
		})
	}
	go func() {
		defer close(bodies)
		for {
			body := fmt.Sprintf(`{"name":"%s","settings":{"postgres":{"host":"db.example","port":5432,"user":"u","database":"d","sslMode":"require"}},"secret":"%s"}`, name("dying"), c.another())
			select {
			case <-stop:
				return
			case bodies <- body:
			}
		}
	}()
	before := p.pids(t)["plane/postgres"]
	kill(t, before)
	within(t, 2*backWithin, func() error {
		now, err := p.process(t.Context(), "plane/postgres")
		if err != nil || now.State != "serving" || now.PID == before {
			return errors.Join(err, errors.New("PostgreSQL is not back"))
		}
		return nil
	})
	close(stop)
	calling.Wait()
}

// metrics looks at what a process tells of itself.
func (c *canaries) metrics(t *testing.T, p *plane, unit string) {
	t.Helper()
	// The environment of a process that lets nobody look into it is root's alone to read.
	var state struct{ Ports map[string]int }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(p.home, "plane.json"))), &state); err != nil || state.Ports[unit+"/ops"] == 0 {
		t.Fatalf("%s tells nothing of itself (%v)", unit, err)
	}
	client := http.Client{Timeout: 10 * time.Second}
	res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", state.Ports[unit+"/ops"]))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil || len(raw) == 0 {
		t.Fatalf("%s: %v", unit, err)
	}
	c.look("metrics of "+unit, raw)
}

// tables looks into every table of a database, and at what its server says of sessions.
func (c *canaries) tables(t *testing.T, p *plane, database string) {
	t.Helper()
	conn := p.superuser(t, "postgres", database)
	rows, err := conn.Query(t.Context(), `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (pgx.Identifier, error) {
		var schema, table string
		err := row.Scan(&schema, &table)
		return pgx.Identifier{schema, table}, err
	})
	if err != nil || len(names) == 0 {
		t.Fatalf("%s has no tables: %v", database, err)
	}
	for _, n := range append(names, pgx.Identifier{"pg_catalog", "pg_stat_activity"}) {
		var out bytes.Buffer
		if _, err := conn.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT * FROM "+n.Sanitize()+") TO STDOUT"); err != nil {
			t.Fatal(err)
		}
		c.look(database+", table "+n.Sanitize(), out.Bytes())
	}
}

// files looks into every file of the plane, PostgreSQL's data and logs among them. A profile holds its own person's session.
func (c *canaries) files(t *testing.T, p *plane) {
	t.Helper()
	core := 0
	for _, root := range p.dirs() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // PostgreSQL removes files as it works
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if d.Name() == "core" || strings.HasPrefix(d.Name(), "core.") {
				core++
			}
			raw, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			c.look(path, raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if core > 0 {
		t.Errorf("%d core files were left", core)
	}
}
