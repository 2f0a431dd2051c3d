package quota_test

import (
	"math"
	"strings"
	"testing"

	"a3os.app/deploy/aws"
	"a3os.app/tools/fleet/internal/quota"
)

func table(t *testing.T, text string) []aws.Quota {
	t.Helper()
	quotas, err := aws.ParseQuotas("quotas.csv", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return quotas
}

// A limit is met exactly where one more tenant than it carries is asked for, and what is asked for carries them.
func TestLimitIsMetByTheFirstTenantThatItDoesNotCarry(t *testing.T) {
	quotas := table(t, aws.QuotasCSV)
	for _, tier := range []string{"database", "dedicated"} {
		p, err := quota.Make(quotas, 1, tier)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range p.Limits {
			for n, met := range map[int]bool{l.Carries: false, l.Carries + 1: true} {
				if n < 1 {
					continue
				}
				if got := find(t, quotas, n, tier, l.Quota); got.Met != met {
					t.Errorf("%s, %d tenants of tier %s: met is %v, want %v", l.Quota, n, tier, got.Met, met)
				}
			}
		}
	}
}

func find(t *testing.T, quotas []aws.Quota, n int, tier, name string) quota.Limit {
	t.Helper()
	p, err := quota.Make(quotas, n, tier)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p.Limits {
		if l.Quota == name {
			return l
		}
	}
	t.Fatalf("the plan has no %q", name)
	return quota.Limit{}
}

func TestPlanNamesTheFirstFiveLimitsWithSources(t *testing.T) {
	for _, n := range []int{100, 1000, 5000} {
		p, err := quota.Make(table(t, aws.QuotasCSV), n, "database")
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Limits) < 5 || p.Limits[0].Quota != "Fargate On-Demand vCPU resource count" || !p.Limits[0].Met {
			t.Fatalf("%d tenants: the first of %d limits is %+v", n, len(p.Limits), p.Limits[0])
		}
		for i, l := range p.Limits {
			if !strings.HasPrefix(l.Source, "https://") || i > 0 && l.Carries < p.Limits[i-1].Carries {
				t.Errorf("%d tenants: limit %d has no source, or comes too late: %+v", n, i, l)
			}
		}
	}
}

func TestDedicatedTenantTakesADatabaseServer(t *testing.T) {
	if l := find(t, table(t, aws.QuotasCSV), 100, "dedicated", "DB instances"); l.PerTenant != 1 || l.Needed != 101 || l.Carries != 39 || !l.Met {
		t.Errorf("%+v", l)
	}
}

func TestPlanRefusesWhatItCannotMean(t *testing.T) {
	without := strings.ReplaceAll(aws.QuotasCSV, "iam,Roles per account,", "iam,Some roles,")
	wordy := strings.ReplaceAll(aws.QuotasCSV, `L-FE177D64,"1,000"`, "L-FE177D64,many")
	for _, c := range []struct {
		tenants    int
		tier, text string
		want       string
	}{
		{0, "database", aws.QuotasCSV, "--tenants is 0"},
		{-3, "database", aws.QuotasCSV, "--tenants is -3"},
		{math.MaxInt, "database", aws.QuotasCSV, "it is from 1 to 1000000"},
		{1, "gold", aws.QuotasCSV, `--tier is "gold"`},
		{1, "database", without, `no "Roles per account" of iam`},
		{1, "database", wordy, `line 82 of the table of quotas: default`},
	} {
		if _, err := quota.Make(table(t, c.text), c.tenants, c.tier); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d of %q: %v, want %q", c.tenants, c.tier, err, c.want)
		}
	}
}
