package systemtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// shared is the plane that nearly all tests use, with the tenants acme and globex. Tests that stop or kill parts of it don't run in
// parallel with others.
var shared *plane

// programs is the directory of the programs under test.
var programs string

func TestMain(m *testing.M) {
	flag.Parse()
	if onDocker() {
		runOnDocker(m)
	}
	os.Exit(suite{m}.Run())
}

func run(m *testing.M) (code int, err error) {
	// Room for a slow machine; each wait has a shorter bound of its own.
	const most = 5 * time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	dir, err := os.MkdirTemp("", "a3-systemtest-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if programs, err = build(ctx, dir); err != nil {
		return 1, err
	}
	shared, err = newPlane(filepath.Join(dir, "plane"), "A3_TENANTS=acme,globex", "A3_CORS_ORIGINS="+frontend)
	if err != nil {
		return 1, err
	}
	if err := shared.up(ctx); err != nil {
		return 1, errors.Join(err, shared.remove())
	}
	code = m.Run()
	if code == 0 && !testing.Short() {
		for _, x := range shared.tenants {
			if err := x.checkRecord(context.WithoutCancel(ctx), os.Stderr); err != nil {
				return 1, errors.Join(err, shared.remove())
			}
		}
	}
	if code != 0 {
		shared.complaints(os.Stderr)
	}
	return code, shared.remove()
}

// build builds the three programs once, or takes those that A3_BIN names.
func build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv("A3_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "bin")
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin+string(filepath.Separator), "./services/accessos", "./tools/fleet", "./tools/a3")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "GOWORK=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return bin, nil
}
