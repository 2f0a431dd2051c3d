package image

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"a3os.app/libs/pgserver"
)

// What of PostgreSQL's loadable modules an image has: the language that migrations use, text search, conversions and replication. Compiled
// queries (llvmjit) would add a compiler to what an attacker finds there.
var modules = []string{"plpgsql.so", "dict_*.so", "*_and_*.so", "euc2004_sjis2004.so", "pgoutput.so", "libpqwalreceiver.so"}

// Postgres is an image of the PostgreSQL server that this machine has: the server, what asks it whether it is ready, and what they load.
// There is no shell in it, and so no COPY … PROGRAM. Clusters are made outside (pgserver.Init).
func Postgres(ctx context.Context, b pgserver.Binaries) (Spec, error) {
	at, err := findPostgres(b)
	if err != nil {
		return Spec{}, err
	}
	s := Spec{Entrypoint: []string{at.server}, Env: []string{"LC_ALL=C", "TZ=UTC"}, User: Nobody}
	programs := []string{at.server, at.isReady}
	for _, pattern := range modules {
		found, err := filepath.Glob(filepath.Join(at.lib, pattern))
		if err != nil {
			return s, err
		}
		programs = append(programs, found...)
	}
	dirs := map[string]bool{}
	for _, p := range programs {
		s.Add(p)
		libraries, err := librariesOf(ctx, p)
		if err != nil {
			return s, err
		}
		for _, l := range libraries {
			s.Add(l)
			dirs[filepath.Dir(l)] = true
		}
	}
	// The cache by which a loader finds libraries is the machine's, and is not in the image.
	s.Env = append(s.Env, "LD_LIBRARY_PATH="+strings.Join(slices.Sorted(maps.Keys(dirs)), ":"))
	for _, tree := range []string{"timezonesets", "timezone", "tsearch_data"} {
		if err := s.addIfThere(filepath.Join(at.share, tree), nil); err != nil {
			return s, err
		}
	}
	for _, f := range []string{"extension/plpgsql.control", "errcodes.txt"} {
		if _, err := os.Stat(filepath.Join(at.share, f)); err == nil {
			s.Add(filepath.Join(at.share, f))
		}
	}
	const zones = "/usr/share/zoneinfo"
	twice := func(p string) bool { return p == zones+"/posix" || p == zones+"/right" }
	return s, s.addIfThere(zones, twice)
}

func (s *Spec) addIfThere(dir string, skip func(string) bool) error {
	if _, err := os.Stat(dir); err != nil {
		return nil //nolint:nilerr // not every build of PostgreSQL has it
	}
	return s.AddTree(dir, skip)
}

// installation says where the parts of PostgreSQL are.
type installation struct{ server, isReady, lib, share string }

// findPostgres finds them from where the server is, as the server does itself (src/port/path.c: relative to the program).
func findPostgres(b pgserver.Binaries) (installation, error) {
	at := installation{server: filepath.Join(b.Dir, "postgres"), isReady: filepath.Join(b.Dir, "pg_isready")}
	if _, err := os.Stat(at.isReady); err != nil {
		return at, fmt.Errorf("there is no pg_isready beside %s, by which a container says that it serves: install PostgreSQL's client, or set A3_PG_BIN", at.server)
	}
	root := filepath.Dir(b.Dir)
	version := filepath.Base(root)
	first := func(holds string, dirs ...string) (string, error) {
		for _, dir := range dirs {
			if _, err := os.Stat(filepath.Join(dir, holds)); err == nil {
				return dir, nil
			}
		}
		return "", fmt.Errorf("%s of the PostgreSQL in %s was not found in %s: set A3_PG_BIN to another installation", holds, b.Dir, strings.Join(dirs, ", "))
	}
	var err error
	if at.lib, err = first("plpgsql.so", filepath.Join(root, "lib"), filepath.Join(root, "lib", "postgresql"), filepath.Join(root, "lib64")); err != nil {
		return at, err
	}
	at.share, err = first("timezonesets", filepath.Join(root, "share"), filepath.Join(root, "share", "postgresql"), filepath.Join("/usr/share/postgresql", version), "/usr/share/pgsql")
	return at, err
}

// A line of ldd(1): `libz.so.1 => /lib/…/libz.so.1 (0x…)`, or the loader alone, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
var lddLine = regexp.MustCompile(`^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$`)

// librariesOf are the shared libraries that a program of this machine loads, the loader with them.
func librariesOf(ctx context.Context, program string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask ldd what %s loads: %w: %s", program, err, out)
	}
	var found []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if m := lddLine.FindStringSubmatch(line); m != nil {
			found = append(found, m[1])
		} else if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("%s loads what is not on this machine: %s", program, strings.TrimSpace(line))
		}
	}
	return found, nil
}
