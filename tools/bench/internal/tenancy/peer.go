package tenancy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"
)

// peer makes what a tenant is held against: a database, and servers that answer from it.
type peer struct {
	server *pgx.Conn
	binary string
	// password of its role.
	password string
}

const (
	template = "bench_template"
	peerRole = "bench_peer"
)

// newPeer makes the template of a tenant's database, and the role that servers log in as.
func (p *plane) newPeer(ctx context.Context, root string) (*peer, error) {
	const slug = "template"
	if _, err := p.run(ctx, "fleet", "tenant", "create", slug); err != nil {
		return nil, err
	}
	id, err := p.idOf(ctx, slug)
	if err != nil {
		return nil, err
	}
	// A database is copied while nobody is connected to it.
	hash, err := p.planned(ctx, "plan", "suspend", "--tenant", slug, "--reason", "its database is copied")
	if err != nil {
		return nil, err
	}
	if _, err := p.run(ctx, "fleet", "apply", hash); err != nil {
		return nil, err
	}
	conn, err := p.superuser(ctx)
	if err != nil {
		return nil, err
	}
	out := &peer{server: conn, binary: filepath.Join(p.dir, "minimal"), password: rand.Text()}
	if _, err := conn.Exec(ctx, "CREATE ROLE "+peerRole+" LOGIN PASSWORD '"+out.password+"'"); err != nil {
		return nil, err
	}
	if err := copied(ctx, conn, id, template); err != nil {
		return nil, fmt.Errorf("make the template: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out.binary, "./tools/bench/internal/minimal") //nolint:gosec // the program is ours
	build.Dir = root
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the minimal server: %w: %s", err, said)
	}
	return out, nil
}

// copied makes a database that nobody else may open: a service that could would rightly not start.
func copied(ctx context.Context, server *pgx.Conn, from, to string) error {
	name := pgx.Identifier{to}.Sanitize()
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+pgx.Identifier{from}.Sanitize()); err != nil {
		return err
	}
	_, err := server.Exec(ctx, "REVOKE ALL ON DATABASE "+name+" FROM PUBLIC; GRANT CONNECT ON DATABASE "+name+" TO "+peerRole)
	return err
}

// create makes a database and starts servers, all at once, each until it answers.
func (p *peer) create(ctx context.Context, n int) (took time.Duration, err error) {
	began, database := time.Now(), fmt.Sprintf("bench_%02d", n)
	if err := copied(ctx, p.server, template, database); err != nil {
		return 0, err
	}
	var servers [processes]*minimal
	defer func() {
		for _, s := range servers {
			if s != nil {
				err = errors.Join(err, s.stop())
			}
		}
	}()
	at := p.server.Config()
	url := fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", peerRole, p.password, at.Host, at.Port, database)
	var all errgroup.Group
	for i := range servers {
		all.Go(func() (err error) {
			if servers[i], err = start(ctx, p.binary, url); err != nil {
				return err
			}
			return servers[i].answers(ctx)
		})
	}
	err = all.Wait()
	return time.Since(began), err
}

// spared returns when the plane has copied a database for its next tenant: that it does is not to be the peer's burden.
func (p *peer) spared(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var there bool
		err := p.server.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database d WHERE starts_with(datname, 'spare_a3_') AND starts_with(shobj_description(d.oid, 'pg_database'), 'a3 spare, whole'))").Scan(&there)
		if err != nil || there {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the plane copied no database for its next tenant: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// minimal is a minimal server that runs.
type minimal struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	address string
	client  *http.Client
}

func start(ctx context.Context, binary, database string) (*minimal, error) {
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = []string{"MINIMAL_DATABASE_URL=" + database}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m := &minimal{cmd: cmd, in: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return m, err
	}
	address, certificate, _ := strings.Cut(strings.TrimSpace(line), " ")
	der, err := base64.StdEncoding.DecodeString(certificate)
	if err != nil {
		return m, err
	}
	own, err := x509.ParseCertificate(der)
	if err != nil {
		return m, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(own)
	m.address = address
	m.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	return m, nil
}

func (m *minimal) answers(ctx context.Context) error {
	client := discoveryv1connect.NewRunServiceClient(m.client, "https://"+m.address)
	_, err := client.GetRun(ctx, connect.NewRequest(&discoveryv1.GetRunRequest{RunId: "run"}))
	return err
}

func (m *minimal) stop() error {
	if m.client != nil {
		m.client.CloseIdleConnections()
	}
	return errors.Join(m.in.Close(), m.cmd.Wait())
}
