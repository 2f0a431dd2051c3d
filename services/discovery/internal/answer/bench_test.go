package answer_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"

	"a3os.app/libs/id"
	"a3os.app/services/discovery/internal/answer"
	"a3os.app/services/discovery/internal/discoverytest"
)

// million is a workspace with a million grants: 100,000 accounts in eight of 250 groups each, groups in groups, and what groups may
// read. All groups may read table1.
func million() string {
	s := strings.ReplaceAll(many, "generate_series(1, 20000)", "generate_series(1, 100000)")
	s = strings.ReplaceAll(s, "n % 20000 + 1", "n % 100000 + 1")
	s = strings.ReplaceAll(s, "n / 20000", "n / 100000")
	s = strings.ReplaceAll(s, "generate_series(1, 160000)", "generate_series(1, 800000)")
	s = strings.ReplaceAll(s, "200000 + n", "2000000 + n")
	s = strings.ReplaceAll(s, "300000 + n", "3000000 + n")
	s = strings.ReplaceAll(s, "generate_series(1, 40000)", "generate_series(1, 199500)")
	return s + `INSERT INTO discovery.grants (workspace_id, integration_id, id, principal_id, entitlement_id, reason, grantable, not_inherited, scope, since, since_run)
SELECT '%WORKSPACE%', pg_temp.uid('int', 1), pg_temp.uid('all', n), pg_temp.uid('group', n), pg_temp.uid('of table', 1), '', false, false, 'test', now(), pg_temp.uid('run', 1)
FROM generate_series(251, 500) n;
`
}

// BenchmarkWho asks who has access among a million grants: of a resource that one group reads, and of one that everybody does; the
// first page, and then pages on from it.
func BenchmarkWho(b *testing.B) {
	env, w := discoverytest.New(b), id.NewWorkspace()
	fillWith(b, env, million(), w)
	env.Exec(b, "ANALYZE")
	ctx := env.In(b.Context(), w)
	for _, resource := range []string{"table:table7", "table:table1"} {
		b.Run(resource, func(b *testing.B) {
			var first, next []time.Duration
			var accounts int32
			var peak uint64
			for range b.N {
				answers := newAnswers(env) // that kept nothing
				req := &discoveryv1.ListHoldersRequest{Resource: resource, PageSize: 500}
				for page := range 4 {
					began := time.Now()
					res, err := answers.Holders(ctx, req)
					if err != nil {
						b.Fatal(err)
					}
					if took := time.Since(began); page == 0 {
						first = append(first, took)
					} else {
						next = append(next, took)
					}
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapSys-m.HeapReleased)
					accounts, req.PageToken = res.GetAccounts(), res.GetNextPageToken()
				}
			}
			b.ReportMetric(float64(accounts), "accounts")
			b.ReportMetric(float64(median(first).Microseconds())/1000, "ms-first-p50")
			b.ReportMetric(float64(median(next).Microseconds())/1000, "ms-next-p50")
			b.ReportMetric(float64(peak>>20), "MiB-heap")
		})
	}
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

func newAnswers(env *discoverytest.Env) *answer.Answers {
	return answer.New(env.DB, env.Pages, env.Sources)
}
