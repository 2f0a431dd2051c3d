package command

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"a3os.app/tools/bench/internal/figure"
	"a3os.app/tools/bench/internal/gobench"
	"a3os.app/tools/bench/internal/posixlog"
)

// envGrants is how many grants a round of ingest takes: a million, as the figure is promised, unless it says otherwise.
const envGrants = "A3_BENCH_GRANTS"

const sealFolder = "services/audit/internal/seal"

func measureIngest(ctx context.Context, o options) (figure.Figure, error) {
	const usual = "1000000"
	grants := cmp.Or(os.Getenv(envGrants), usual)
	return gobench.Measure(ctx, o.root, figure.Rounds, gobench.Spec{
		Folder: "services/discovery/internal/runs", Name: "BenchmarkIngestToPublished", Ours: "grants/s", Theirs: "bare-grants/s",
		Env: []string{envGrants + "=" + grants},
		Figure: figure.Figure{
			Name: "ingest of grants to published ÷ raw COPY", Unit: "grants/s",
			Measured: figure.Series{What: "ingest to published"}, Against: figure.Series{What: "raw COPY of the same rows"},
			Bound: figure.Bound{AtLeast: 0.3},
			Note:  fmt.Sprintf("%s grants a round, with the resources and entitlements they name, into tables of the same shape (%s takes another number)", grants, envGrants),
		},
	})
}

func measureDeeds(ctx context.Context, o options) (figure.Figure, error) {
	return gobench.Measure(ctx, o.root, figure.Rounds, gobench.Spec{
		Folder: sealFolder, Name: "BenchmarkDeeds", Ours: "deeds-with-event/s", Theirs: "deeds/s",
		Figure: figure.Figure{
			Name: "deeds with their event in the same transaction ÷ without", Unit: "deeds/s",
			Measured: figure.Series{What: "deeds with their event"}, Against: figure.Series{What: "the same deeds without"},
			Bound: figure.Bound{AtLeast: 0.7},
			Note:  "64 producers, PostgreSQL syncs, a sealer seals meanwhile; a deed claims an idempotency key, writes a row and keeps its answer",
		},
	})
}

func measureJobs(ctx context.Context, o options) (figure.Figure, error) {
	return gobench.Measure(ctx, o.root, figure.Rounds, gobench.Spec{
		Folder: "libs/queue/postgres", Name: "BenchmarkSignedJobs", Ours: "jobs/s", Theirs: "bare-jobs/s",
		Figure: figure.Figure{
			Name: "jobs with signed envelopes ÷ River alone", Unit: "jobs/s",
			Measured: figure.Series{What: "signed, verified and read"}, Against: figure.Series{What: "River alone with the same words"},
			Bound: figure.Bound{AtLeast: 0.8},
			Note:  "16 producers and 16 jobs at once on both sides, each job enqueued in a transaction of its own, and once by its key, which costs River about a tenth",
		},
	})
}

func measureMessages(ctx context.Context, o options) (figure.Figure, error) {
	return gobench.Measure(ctx, o.root, figure.Rounds, gobench.Spec{
		Folder: "libs/queue/sqs", Name: "BenchmarkHandled", Ours: "messages/s", Theirs: "bare-messages/s",
		Figure: figure.Figure{
			Name: "messages handled by the driver of SQS ÷ the bare SDK's loop", Unit: "messages/s",
			Measured: figure.Series{What: "signed, enqueued with a deed, sent, verified, claimed and read"}, Against: figure.Series{What: "sent, received and deleted by the SDK"},
			Bound: figure.Bound{AtLeast: 0.7},
			Note:  "MiniStack, 16 producers and 16 messages at once on both sides",
		},
	})
}

// envTenantsOnAWS is how many tenants are changed at once: ten, as the figure is promised, unless it says otherwise.
const envTenantsOnAWS = "A3_BENCH_AWS_TENANTS"

func measureTenantsOnAWS(ctx context.Context, o options) (figure.Figure, error) {
	const usual = "10"
	tenants := cmp.Or(os.Getenv(envTenantsOnAWS), usual)
	// The benchmark takes its rounds itself, for a plane is made once for all of them.
	return gobench.Measure(ctx, o.root, 1, gobench.Spec{
		Folder: "tools/fleet/internal/platform/aws", Name: "BenchmarkTenantsAtOnce", Ours: "s-at-once", Theirs: "s-alone",
		Env: []string{envTenantsOnAWS + "=" + tenants},
		Figure: figure.Figure{
			Name: "tenants on AWS taken to a release at once ÷ one alone", Unit: "s",
			Measured: figure.Series{What: tenants + " tenants at once"}, Against: figure.Series{What: "one alone"},
			Bound: figure.Bound{AtMost: 4},
			Note:  "from the making of change sets until every component reports the digest; MiniStack, five containers a tenant, all on this machine (" + envTenantsOnAWS + " takes another number)",
		},
	})
}

func measureSealing(ctx context.Context, o options) (figure.Figure, error) {
	f, err := gobench.Measure(ctx, o.root, figure.Rounds, gobench.Spec{
		Folder: sealFolder, Name: "BenchmarkSealing", Ours: "sealed/s", Theirs: "plain-inserts/s",
		Figure: figure.Figure{
			Name: "events sealed ÷ plain one-row INSERTs by 64 producers", Unit: "events/s",
			Measured: figure.Series{What: "events sealed"}, Against: figure.Series{What: "plain one-row INSERTs"},
			Bound: figure.Bound{AtLeast: 2},
		},
	})
	if err != nil {
		return f, err
	}
	beside, err := posixlog.Measure(ctx, figure.Rounds)
	if err != nil {
		return f, err
	}
	f.Note = fmt.Sprintf("PostgreSQL syncs; beside it, for information, Tessera's POSIX driver integrates %.0f entries/s here (median of %d, batches of %d)",
		beside, figure.Rounds, posixlog.Batch)
	return f, nil
}
