package tenancy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/pgserver"
)

// plane is a plane of its own.
type plane struct {
	dir, home, bin, port string
	environ              []string
}

func newPlane(ctx context.Context, root string) (p *plane, err error) {
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return nil, err
	}
	p = &plane{dir: dir, home: filepath.Join(dir, "home"), bin: bin}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close(context.WithoutCancel(ctx)))
		}
	}()
	// PostgreSQL's own user walks to what is its own below.
	const walk = 0o711
	if err := errors.Join(os.Mkdir(p.home, walk), os.Chmod(dir, walk)); err != nil {
		return p, err
	}
	if p.port, err = freePort(ctx); err != nil {
		return p, err
	}
	p.environ = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "A3_HOME=" + p.home, "A3_PORT=" + p.port, "A3_TENANTS=bench", "A3_UNIX_TENANTS=none", "A3_LOG_LEVEL=error"}
	_, err = p.run(ctx, "fleet", "plane", "up")
	return p, err
}

func freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// run runs one of the programs, and answers all that it said.
func (p *plane) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, program), args...) //nolint:gosec // the program is ours
	cmd.Env, cmd.Dir = p.environ, p.dir
	// The plane's supervisor, which plane up leaves behind, holds what it was started with open.
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, out)
	}
	return string(out), nil
}

// json runs fleet and reads its answer.
func (p *plane) json(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "fleet"), append([]string{"-o", "json"}, args...)...) //nolint:gosec // the program is ours
	cmd.Env, cmd.Dir = p.environ, p.dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("fleet %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

func (p *plane) close(ctx context.Context) error {
	_, err := p.run(ctx, "fleet", "plane", "down", "--remove-data")
	return errors.Join(err, os.RemoveAll(p.dir))
}

// planned has fleet make a plan, and answers its hash.
func (p *plane) planned(ctx context.Context, args ...string) (string, error) {
	out, err := p.json(ctx, args...)
	if err != nil {
		return "", err
	}
	var made struct{ Plan struct{ Hash string } }
	err = json.Unmarshal(out, &made)
	return made.Plan.Hash, err
}

func (p *plane) idOf(ctx context.Context, slug string) (string, error) {
	out, err := p.json(ctx, "tenant", "show", slug)
	if err != nil {
		return "", err
	}
	status := &registryv1.TenantStatus{}
	err = protojson.Unmarshal(out, status)
	return status.GetTenant().GetId(), err
}

// settled returns when each component of a tenant's set has said who it is, healthy.
func (p *plane) settled(ctx context.Context, slug string) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := p.json(ctx, "tenant", "show", slug)
		if err != nil {
			return err
		}
		status := &registryv1.TenantStatus{}
		if err := protojson.Unmarshal(out, status); err != nil {
			return err
		}
		said := 0
		for _, r := range status.GetReports() {
			if r.GetHealth() == registryv1.Health_HEALTH_SERVING && r.GetRelease() != "" {
				said++
			}
		}
		if said == processes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the set of %s did not say who it is: %w", slug, ctx.Err())
		case <-tick.C:
		}
	}
}

// setupCode is the code in what a command told a person.
func setupCode(said string) (string, error) {
	_, rest, ok := strings.Cut(said, "--setup-code ")
	if !ok || len(strings.Fields(rest)) == 0 {
		return "", errors.New("fleet told no setup code")
	}
	return strings.Fields(rest)[0], nil
}

// superuser connects to the tenants' server.
func (p *plane) superuser(ctx context.Context) (*pgx.Conn, error) {
	dir, err := pgserver.DirFor(filepath.Join(p.home, "postgres"), "")
	if err != nil {
		return nil, err
	}
	password, err := os.ReadFile(filepath.Join(dir, "superuser.password"))
	if err != nil {
		return nil, err
	}
	lock, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	// Line 4 is the port (storage/pidfile.h).
	const portLine = 3
	u := url.URL{Scheme: "postgres", User: url.UserPassword(pgserver.Superuser, string(password)), Path: "/postgres", RawQuery: "sslmode=disable",
		Host: net.JoinHostPort("127.0.0.1", strings.TrimSpace(strings.Split(string(lock), "\n")[portLine]))}
	return pgx.Connect(ctx, u.String())
}

// rollout registers a release that runs as the one before does, and plans to bring it to tenants, so many at once.
func (p *plane) rollout(ctx context.Context, program []byte, n int, slugs []string, parallel int) (string, error) {
	version, file := fmt.Sprintf("1.0.%d", n), filepath.Join(p.dir, fmt.Sprintf("accessos-%d", n))
	const executable = 0o755
	// What follows the end of an ELF file is never read.
	if err := os.WriteFile(file, append(program, version...), executable); err != nil {
		return "", err
	}
	if _, err := p.run(ctx, "fleet", "release", "register", "--version", version, "--artefact", "accessos="+file); err != nil {
		return "", err
	}
	args := []string{"rollout", "plan", "--release", version, "--bake", "0s", "--samples", "0", "--restarts", "1000", "--p99-factor", "0", "--error-growth", "1", "--max-parallel", strconv.Itoa(parallel), "--reason", "how long it takes is measured"}
	for _, slug := range slugs {
		args = append(args, "--tenant", slug)
	}
	out, err := p.json(ctx, args...)
	if err != nil {
		return "", err
	}
	stored := &registryv1.StoredPlan{}
	err = errors.Join(protojson.Unmarshal(out, stored), os.Remove(file))
	return stored.GetHash(), err
}

// restart ends each process of the tenants, in order, and waits until the supervisor has it serving again before it goes on.
func (p *plane) restart(ctx context.Context, slugs []string) (time.Duration, error) {
	out, err := p.json(ctx, "plane", "status")
	if err != nil {
		return 0, err
	}
	var status struct {
		Processes []struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		} `json:"processes"`
		Tenants []struct {
			Slug string `json:"slug"`
			ID   string `json:"id"`
		} `json:"tenants"`
	}
	var state struct {
		Ports map[string]int `json:"ports"`
	}
	text, err := os.ReadFile(filepath.Join(p.home, "plane.json"))
	if err := errors.Join(json.Unmarshal(out, &status), err, json.Unmarshal(text, &state)); err != nil {
		return 0, err
	}
	began, restarted := time.Now(), 0
	for _, t := range status.Tenants {
		for _, u := range status.Processes {
			if !strings.HasPrefix(u.Name, t.ID+"/") || !strings.HasPrefix(t.Slug, "bench-") {
				continue
			}
			if err := again(ctx, u.PID, state.Ports[u.Name+"/ops"]); err != nil {
				return 0, fmt.Errorf("%s: %w", u.Name, err)
			}
			restarted++
		}
	}
	if restarted != processes*len(slugs) {
		return 0, fmt.Errorf("of %d tenants %d processes were found", len(slugs), restarted)
	}
	return time.Since(began), nil
}

const (
	lookEvery = 2 * time.Millisecond
	giveUp    = time.Minute
)

// again ends a process and waits until whoever comes after it serves.
func again(ctx context.Context, pid, port int) error {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if syscall.Kill(pid, 0) != nil && ready(ctx, port) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, port int) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", port), nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}
