package aws_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// BenchmarkTenantsAtOnce has tenants taken to a new release, from the plan, which makes the change set of each stack, until every component of
// each set has reported the release's digest: one tenant alone, and many at once, in turns. A tenant that goes before both has the image be
// where tasks are started from.
func BenchmarkTenantsAtOnce(b *testing.B) {
	number := func(name, otherwise string) int {
		n, err := strconv.Atoi(cmp.Or(os.Getenv(name), otherwise))
		if err != nil {
			b.Fatalf("%s is no number: %v", name, err)
		}
		return n
	}
	n, rounds := number("A3_BENCH_AWS_TENANTS", "10"), number("A3_BENCH_AWS_ROUNDS", "10")
	slugs := []string{"first", "alone"}
	for i := range n {
		slugs = append(slugs, fmt.Sprintf("t%d", i+1))
	}
	server := account(b)
	p := newPlane(b, server, strings.Join(slugs, ","))
	calls := awstest.Count(b, server)
	p.calls(calls.Server)
	p.fleet("plane", "up")
	for round := range rounds {
		version := fmt.Sprintf("2.%d.0", round)
		p.release("fleet", version, func(program []byte) []byte { return append(program, version...) })
		p.upgraded(version, slugs[:1])
		b.Run("round", func(b *testing.B) {
			calls.Taken()
			alone := p.upgraded(version, slugs[1:2])
			of, all := calls.Taken()
			b.Logf("one alone calls AWS %d times: %v", all, of)
			b.ReportMetric(float64(all), "calls-alone")
			at := p.upgraded(version, slugs[2:])
			of, all = calls.Taken()
			b.Logf("%d at once call AWS %d times: %v", n, all, of)
			b.ReportMetric(float64(all)/float64(n), "calls-each-at-once")
			b.ReportMetric(alone.Seconds(), "s-alone")
			b.ReportMetric(at.Seconds(), "s-at-once")
		})
	}
}

// upgraded takes tenants to a release, all at once, and says how long that took. Each says afterwards that it runs it.
func (p *plane) upgraded(version string, slugs []string) time.Duration {
	p.t.Helper()
	began := time.Now()
	args := []string{"-o", "json", "plan", "upgrade", "--release", version, "--reason", "measured by a benchmark"}
	for _, slug := range slugs {
		args = append(args, "--tenant", slug)
	}
	var made struct{ Plan struct{ Hash string } }
	out, err := p.command(args...).Output()
	if err == nil {
		err = json.Unmarshal(out, &made)
	}
	if err != nil {
		p.t.Fatalf("plan the release %s: %v: %s", version, err, out)
	}
	p.fleet("apply", made.Plan.Hash, "--max-parallel", strconv.Itoa(len(slugs)))
	took := time.Since(began)
	var wg sync.WaitGroup
	for _, slug := range slugs {
		wg.Go(func() {
			for _, r := range p.tenant(slug).GetReports() {
				if !strings.HasPrefix(r.GetRelease(), version+"@") {
					p.t.Errorf("%s of %s reports %s", r.GetName(), slug, r.GetRelease())
				}
			}
		})
	}
	wg.Wait()
	return took
}
