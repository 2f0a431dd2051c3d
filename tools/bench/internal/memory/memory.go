// Package memory measures what a tenant costs while nobody asks it anything: the proportional memory of its five processes in a
// plane that is up, beside the resident memory of one minimal server. It promises to start nothing but that minimal server.
package memory

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	"a3os.app/proto/gen/go/a3os/discovery/v1/discoveryv1connect"

	"a3os.app/tools/bench/internal/figure"
)

// Config says where to look.
type Config struct {
	// Root is the checkout.
	Root string
	// Rounds is how often both are measured; at least figure.Rounds.
	Rounds int
}

const (
	// processes of a set.
	processes = 5
	// settle is how long the minimal server is left alone after its calls, as the set is.
	settle = 500 * time.Millisecond
	calls  = 50
	kib    = 1 << 10
)

// Measure answers the figure. Where no plane is up, it is one that wasn't measured.
func Measure(ctx context.Context, cfg Config) (figure.Figure, error) {
	f := figure.Figure{
		Name: "memory of a tenant's five idle processes ÷ one minimal server", Unit: "MiB",
		Measured: figure.Series{What: "five processes (PSS)"}, Against: figure.Series{What: "minimal Connect+pgx+otel server (RSS)"},
		Bound: figure.Bound{AtMost: 4},
	}
	set, err := running(ctx, cfg.Root)
	if err != nil {
		f.NotMeasured = err.Error()
		return f, nil
	}
	f.Note = set.note()
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "minimal")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./tools/bench/internal/minimal")
	build.Dir = cfg.Root
	if out, err := build.CombinedOutput(); err != nil {
		return f, fmt.Errorf("build the minimal server: %w: %s", err, out)
	}
	var measured, against []float64
	for range cfg.Rounds {
		m, err := minimal(ctx, binary)
		if err != nil {
			return f, fmt.Errorf("measure the minimal server: %w", err)
		}
		pss, err := set.pss()
		if err != nil {
			return f, err
		}
		measured, against = append(measured, pss), append(against, m)
	}
	return f, f.Fill(measured, against)
}

// set is a tenant's processes.
type set struct {
	tenant string
	pids   []int
	plane  int
}

func (s set) note() string {
	return fmt.Sprintf("tenant %s, in a plane of %d processes that share pages", s.tenant, s.plane)
}

// running finds the set that uses most memory in the plane that is up. Its errors say why there is none.
func running(ctx context.Context, root string) (set, error) {
	fleet, err := filepath.Abs(filepath.Join(root, "bin", "fleet"))
	if err != nil {
		return set{}, err
	}
	if _, err := os.Stat(fleet); err != nil {
		return set{}, errors.New("no plane is up: run make up first")
	}
	cmd := exec.CommandContext(ctx, fleet, "plane", "status", "-o", "json")
	cmd.Dir = root
	raw, err := cmd.Output()
	if err != nil {
		return set{}, errors.New("no plane is up: run make up first")
	}
	var status struct {
		Processes []struct {
			Group string `json:"group"`
			State string `json:"state"`
			PID   int    `json:"pid"`
		} `json:"processes"`
		Tenants []struct {
			ID   string `json:"id"`
			Slug string `json:"slug"`
		} `json:"tenants"`
	}
	if err := json.Unmarshal(raw, &status); err != nil {
		return set{}, fmt.Errorf("the status of the plane can't be read: %w", err)
	}
	var most set
	var mostPSS float64
	for _, t := range status.Tenants {
		s := set{tenant: t.Slug, plane: len(status.Processes)}
		for _, p := range status.Processes {
			if p.Group == t.ID && p.State == "serving" {
				s.pids = append(s.pids, p.PID)
			}
		}
		if len(s.pids) != processes {
			continue
		}
		pss, err := s.pss()
		if err != nil {
			return set{}, err
		}
		if pss > mostPSS {
			most, mostPSS = s, pss
		}
	}
	if most.pids == nil {
		return set{}, fmt.Errorf("no tenant of the plane has its %d processes serving", processes)
	}
	return most, nil
}

// pss is the proportional memory of the processes in MiB: pages that processes share count in parts.
func (s set) pss() (float64, error) {
	var sum float64
	for _, pid := range s.pids {
		v, err := field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// field reads a line such as `Pss:   12345 kB` and answers MiB.
func field(file, name string) (float64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the memory of a process: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kb / kib, err
		}
	}
	return 0, fmt.Errorf("%s has no line %s", file, name)
}

// minimal starts the minimal server, calls it, leaves it alone for a moment and answers its resident memory in MiB.
func minimal(ctx context.Context, binary string) (rss float64, err error) {
	cmd := exec.CommandContext(ctx, binary)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close(), cmd.Wait()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("it did not say where it listens: %w", err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	client := discoveryv1connect.NewRunServiceClient(http.DefaultClient, "http://"+strings.TrimSpace(line))
	for range calls {
		if _, err := client.GetRun(ctx, connect.NewRequest(&discoveryv1.GetRunRequest{RunId: "run"})); err != nil {
			return 0, err
		}
	}
	http.DefaultClient.CloseIdleConnections()
	t := time.NewTimer(settle)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return field(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid), "VmRSS:")
}
