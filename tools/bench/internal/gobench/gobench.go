// Package ingest reads what discovery's own benchmark measures: grants from a worker's stream to a published run, beside a raw COPY
// of the same rows into a table of the same shape. The benchmark stands with the code it measures, for it takes the service's own
// parts; services are not imported here.
package ingest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"a3os.app/tools/bench/internal/figure"
)

// Benchmark is the benchmark's name. Each of its iterations measures both, in turns, and reports `grants/s` and `bare-grants/s`.
const Benchmark = "BenchmarkIngestToPublished"

// EnvGrants is how many grants a round takes: as many as fit ten rounds into minutes unless it says otherwise.
const EnvGrants = "A3_BENCH_GRANTS"

const (
	folder  = "services/discovery/internal/runs"
	ours    = "grants/s"
	rawCopy = "bare-grants/s"
	usual   = "200000"
	// patience is for a million a round on a busy machine.
	patience = time.Hour
)

// Config says where to look.
type Config struct {
	// Root is the checkout.
	Root string
	// Rounds is how often the benchmark runs; at least figure.Rounds.
	Rounds int
}

// Measure answers the figure. Where the benchmark isn't there, it is one that wasn't measured.
func Measure(ctx context.Context, cfg Config) (figure.Figure, error) {
	grants := cmp.Or(os.Getenv(EnvGrants), usual)
	f := figure.Figure{
		Name: "ingest of grants to published ÷ raw COPY", Unit: ours,
		Measured: figure.Series{What: "ingest to published"}, Against: figure.Series{What: "raw COPY of the same rows"},
		Bound: figure.Bound{AtLeast: 0.3},
		Note:  fmt.Sprintf("%s grants a round, with the resources and entitlements they name, into tables of the same shape; %s=1000000 takes a million", grants, EnvGrants),
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+Benchmark+"$", "-benchtime", "1x",
		"-count", strconv.Itoa(cfg.Rounds), "-timeout", patience.String(), "./"+folder)
	cmd.Dir = cfg.Root
	cmd.Env = append(os.Environ(), EnvGrants+"="+grants)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if _, err := os.Stat(filepath.Join(cfg.Root, folder)); errors.Is(err, fs.ErrNotExist) {
		f.NotMeasured = folder + " is not there"
		return f, nil
	}
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("run %s: %w\n%s", Benchmark, err, tail(out.Bytes()))
	}
	measured, against, err := parse(out.Bytes())
	if err != nil {
		return f, err
	}
	if len(measured) == 0 {
		f.NotMeasured = Benchmark + " is not in " + folder
		return f, nil
	}
	return f, f.Fill(measured, against)
}

// parse reads the lines of go test: a name, how often, and pairs of a value and its unit. What is logged meanwhile may have torn the
// name off its values.
func parse(out []byte) (measured, against []float64, err error) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if !slices.Contains(words, "ns/op") {
			continue
		}
		values := map[string]float64{}
		for i, unit := range words {
			if unit != ours && unit != rawCopy {
				continue
			}
			v, err := strconv.ParseFloat(words[max(0, i-1)], 64)
			if err != nil {
				return nil, nil, fmt.Errorf("%q is no line of a benchmark: %w", lines.Text(), err)
			}
			values[unit] = v
		}
		a, haveA := values[ours]
		b, haveB := values[rawCopy]
		if !haveA || !haveB {
			return nil, nil, fmt.Errorf("%s reports no %s beside %s: %s", Benchmark, ours, rawCopy, lines.Text())
		}
		measured, against = append(measured, a), append(against, b)
	}
	return measured, against, errors.Join(lines.Err())
}

// tail is the end of what a failed benchmark wrote.
func tail(out []byte) []byte {
	const most = 4 << 10
	return out[max(0, len(out)-most):]
}
