// Package gobench reads what benchmarks of `go test` measure, that stand with the code they measure, for they take the service's own
// parts, and services are not imported here. Each measures both sides in turns and reports them in two units.
package gobench

import (
	"bufio"
	"bytes"
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

// Spec is a figure that a benchmark measures.
type Spec struct {
	// Folder of the benchmark's package, from the checkout's root.
	Folder string
	// Name of the benchmark.
	Name string
	// Ours and Theirs are the units that it reports the two sides in.
	Ours, Theirs string
	// Env is more of the environment, as NAME=value.
	Env []string
	// Figure is the figure without its values.
	Figure figure.Figure
}

// patience is for a million of anything a round on a busy machine.
const patience = time.Hour

// Measure runs the benchmark once a round, and answers the figure. Where the benchmark isn't there, it is one that wasn't measured.
func Measure(ctx context.Context, root string, rounds int, s Spec) (figure.Figure, error) {
	f := s.Figure
	if _, err := os.Stat(filepath.Join(root, s.Folder)); errors.Is(err, fs.ErrNotExist) {
		f.NotMeasured = s.Folder + " is not there"
		return f, nil
	}
	//nolint:gosec // the names are of this program
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+s.Name+"$", "-benchtime", "1x",
		"-count", strconv.Itoa(rounds), "-timeout", patience.String(), "./"+s.Folder)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), s.Env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return f, fmt.Errorf("run %s: %w\n%s", s.Name, err, tail(out.Bytes()))
	}
	measured, against, err := s.parse(out.Bytes())
	if err != nil {
		return f, err
	}
	if len(measured) == 0 {
		f.NotMeasured = s.Name + " is not in " + s.Folder
		return f, nil
	}
	return f, f.Fill(measured, against)
}

// parse reads the lines of go test: a name, how often, and pairs of a value and its unit. What is logged meanwhile may have torn the
// name off its values.
func (s Spec) parse(out []byte) (measured, against []float64, err error) {
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if !slices.Contains(words, "ns/op") {
			continue
		}
		values := map[string]float64{}
		for i, unit := range words {
			if unit != s.Ours && unit != s.Theirs {
				continue
			}
			v, err := strconv.ParseFloat(words[max(0, i-1)], 64)
			if err != nil {
				return nil, nil, fmt.Errorf("%q is no line of a benchmark: %w", lines.Text(), err)
			}
			values[unit] = v
		}
		a, haveA := values[s.Ours]
		b, haveB := values[s.Theirs]
		if !haveA || !haveB {
			return nil, nil, fmt.Errorf("%s reports no %s beside %s: %s", s.Name, s.Ours, s.Theirs, lines.Text())
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
