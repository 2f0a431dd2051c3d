package reports

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"a3os.app/libs/workload"
)

const (
	devPlane = "dev"
	release  = "0.0.0-dev@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	registry = "plane/registry"
)

// plane is a plane of its own, and the sets that report to it.
type plane struct {
	fleet   string
	environ []string
	pid     int
	sets    []*set
}

func newPlane(ctx context.Context, cfg Config, dir string) (p *plane, err error) {
	p = &plane{fleet: filepath.Join(cfg.Root, "bin", "fleet"), sets: make([]*set, cfg.Sets)}
	if p.fleet, err = filepath.Abs(p.fleet); err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "home")
	p.environ = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "A3_HOME=" + home, "A3_PORT=" + port, "A3_TENANTS=bench", "A3_UNIX_TENANTS=none", "A3_LOG_LEVEL=error"}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close(context.WithoutCancel(ctx)))
		}
	}()
	if out, err := p.run(ctx, "plane", "up"); err != nil {
		return p, fmt.Errorf("bring a plane up: %w: %s", err, out)
	}
	var state struct {
		Served string         `json:"served"`
		Ports  map[string]int `json:"ports"`
	}
	text, err := os.ReadFile(filepath.Join(home, "plane.json"))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return p, err
	}
	if state.Served == "" {
		state.Served = home
	}
	roots, err := os.ReadFile(filepath.Join(state.Served, "pki", "roots.pem"))
	if err != nil {
		return p, err
	}
	trust := workload.Trust{Plane: devPlane}
	if trust.PlaneRoots, err = workload.ParseRoots(workload.TrustDomain{Plane: devPlane}, roots); err != nil {
		return p, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(state.Ports[registry+"/api"]))
	var making errgroup.Group
	making.SetLimit(runtime.GOMAXPROCS(0))
	for i := range p.sets {
		making.Go(func() (err error) {
			if p.sets[i], err = newSet(filepath.Join(dir, "sets")); err != nil {
				return err
			}
			return p.sets[i].dial(address, trust)
		})
	}
	if err := making.Wait(); err != nil {
		return p, err
	}
	return p, p.fill(ctx, filepath.Join(state.Served, "plane", "database", "owner.url"))
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

func (p *plane) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, p.fleet, args...) //nolint:gosec // the program is ours
	cmd.Env = p.environ
	out, err := cmd.Output()
	return string(out), err
}

func (p *plane) close(ctx context.Context) error {
	for _, s := range p.sets {
		if s != nil && s.conn != nil {
			_ = s.conn.Close()
		}
	}
	if out, err := p.run(ctx, "plane", "down", "--remove-data"); err != nil {
		return fmt.Errorf("take the plane down: %w: %s", err, out)
	}
	return nil
}

// fill writes the tenants into the registry's database as if they had been made one by one, which would take an hour.
func (p *plane) fill(ctx context.Context, urlFile string) error {
	text, err := os.ReadFile(urlFile)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var tenants, slugs, sets, components [][]any
	for i, s := range p.sets {
		key, slug := s.tenant.Bytes(), fmt.Sprintf("t%05d", i)
		tenants = append(tenants, []any{key, slug, slug, "active", "database", "local"})
		slugs = append(slugs, []any{slug, key})
		sets = append(sets, []any{key, s.roots, release, "audit"})
		for n, name := range names {
			// An address of its own for each, in 127.64.0.0/10.
			components = append(components, []any{key, name, int16(n), fmt.Sprintf("127.%d.%d.%d:%d", 64+i>>16, i>>8&255, i&255, 20000+n), []string{}}) //nolint:gosec // at most five
		}
	}
	for _, t := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"tenants", []string{"id", "slug", "display_name", "state", "isolation_tier", "region"}, tenants},
		{"slugs", []string{"slug", "tenant_id"}, slugs},
		{"service_sets", []string{"tenant_id", "ca_certificates_pem", "release", "reporter"}, sets},
		{"components", []string{"tenant_id", "name", "position", "address", "path_prefixes"}, components},
	} {
		if _, err := conn.CopyFrom(ctx, pgx.Identifier{"registry", t.table}, t.columns, pgx.CopyFromRows(t.rows)); err != nil {
			return fmt.Errorf("%s: %w", t.table, err)
		}
	}
	_, err = conn.Exec(ctx, "ANALYZE registry.tenants, registry.service_sets, registry.components")
	return err
}

// process is the registry's.
func (p *plane) process(ctx context.Context) (int, error) {
	out, err := p.run(ctx, "plane", "status", "-o", "json")
	if err != nil {
		return 0, err
	}
	var status struct {
		Processes []struct {
			Name string `json:"name"`
			PID  int    `json:"pid"`
		} `json:"processes"`
	}
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return 0, err
	}
	for _, u := range status.Processes {
		if u.Name == registry && u.PID != 0 {
			return u.PID, nil
		}
	}
	return 0, errors.New("the plane has no registry that runs")
}

// storm is what came of a restart.
type storm struct {
	outcome
	took time.Duration
}

// restart ends the registry with all sets connected or about to be, and returns when each has reported to the one that comes after.
func (p *plane) restart(ctx context.Context) (storm, error) {
	before, err := p.process(ctx)
	if err != nil {
		return storm{}, err
	}
	if err := syscall.Kill(before, syscall.SIGTERM); err != nil {
		return storm{}, fmt.Errorf("end the registry: %w", err)
	}
	began := time.Now()
	out, err := once(ctx, p.sets, spread)
	if err != nil {
		return storm{}, fmt.Errorf("after a restart of the registry: %w", err)
	}
	took := time.Since(began)
	p.pid, err = p.process(ctx)
	if err == nil && p.pid == before {
		err = errors.New("the registry was not started anew")
	}
	return storm{outcome: out, took: took}, err
}

// round has every set report once.
func (p *plane) round(ctx context.Context, within time.Duration) (outcome, error) {
	return once(ctx, p.sets, within)
}

// cpu is the processor time that the registry's process has had.
func (p *plane) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, fmt.Errorf("read the registry's processor time: %w", err)
	}
	// The command in parentheses can hold anything: fields are counted from its end (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const user, system, ticks = 11, 12, 100
	var sum int64
	for _, n := range []int{user, system} {
		v, err := strconv.ParseInt(fields[n], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

// resident is the registry's memory.
func (p *plane) resident() int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(statm))
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
