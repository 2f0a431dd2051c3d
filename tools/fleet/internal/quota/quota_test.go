package quota_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

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
		p, err := quota.Make(quotas, 1, tier, 1)
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

// What is asked for is enough to change what stands: as many tenants at once as a rollout is to, whose tasks all start beside those that run, and each a migration before.
func TestVCPUsAreEnoughToRollARelease(t *testing.T) {
	const name, tasks = "Fargate On-Demand vCPU resource count", 7.0
	at := func(tenants, atOnce int) quota.Limit {
		p, err := quota.Make(table(t, aws.QuotasCSV), tenants, "dedicated", atOnce)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range p.Limits {
			if l.Quota == name {
				return l
			}
		}
		t.Fatal("nothing is said of vCPUs")
		return quota.Limit{}
	}
	for atOnce := 1; atOnce <= 10; atOnce *= 10 {
		l := at(100, atOnce)
		if l.PerTenant != tasks || float64(l.Needed) <= l.Plane+tasks*float64(100+atOnce) || l.Ask != l.Needed || l.Changing != float64(l.Needed)-l.Plane-100*tasks {
			t.Errorf("%d at once: %+v", atOnce, l)
		}
	}
	if one, ten := at(100, 1), at(100, 10); ten.Changing != 10*one.Changing {
		t.Errorf("one takes %v beside, ten take %v", one.Changing, ten.Changing)
	}
	if _, err := quota.Make(table(t, aws.QuotasCSV), 1, "dedicated", 0); err == nil || !strings.Contains(err.Error(), "--max-parallel") {
		t.Errorf("none at once is planned for: %v", err)
	}
}

func find(t *testing.T, quotas []aws.Quota, n int, tier, name string) quota.Limit {
	t.Helper()
	p, err := quota.Make(quotas, n, tier, 1)
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
		p, err := quota.Make(table(t, aws.QuotasCSV), n, "database", 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Limits) < 5 || p.Limits[0].Quota != "Fargate On-Demand vCPU resource count" || !p.Limits[0].Met || p.Limits[1].Service != "rds" {
			t.Fatalf("%d tenants: the first of %d limits is %+v", n, len(p.Limits), p.Limits[0])
		}
		for i, l := range p.Limits {
			if !strings.HasPrefix(l.Source, "https://") || i > 0 && l.Carries < p.Limits[i-1].Carries {
				t.Errorf("%d tenants: limit %d has no source, or comes too late: %+v", n, i, l)
			}
		}
	}
}

// Tenants of tier database share the one server that a plane has, whose connections bound them: a plan doesn't count on servers that nobody can make.
func TestTenantsOfTierDatabaseFillTheOneServer(t *testing.T) {
	const name = "Connections of the plane's one shared server, db.t4g.medium"
	for n, met := range map[int]bool{1: false, 26: false, 27: true, 100: true} {
		l := find(t, table(t, aws.QuotasCSV), n, "database", name)
		if l.Default != 422 || l.PerTenant != 15 || l.Plane != 21 || l.Carries != 26 || l.Met != met || l.Ask != 0 || strings.Contains(l.Next, "dedicated") != met {
			t.Errorf("%d tenants: %+v", n, l)
		}
	}
	p, err := quota.Make(table(t, aws.QuotasCSV), 100, "database", 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p.Limits {
		if l.Quota == "DB instances" {
			t.Errorf("tenants of tier database take %v servers each", l.PerTenant)
		}
	}
}

func TestDedicatedTenantTakesADatabaseServer(t *testing.T) {
	if l := find(t, table(t, aws.QuotasCSV), 100, "dedicated", "DB instances"); l.PerTenant != 1 || l.Needed != 101 || l.Carries != 39 || !l.Met {
		t.Errorf("%+v", l)
	}
}

// A dedicated tenant has five tasks and, on prod, a server and its standby in the network, and the server's disk is of what an account may have; of the plane
// there are two tasks, a server with its standby, endpoints and the load balancer in two zones each, and what leads out of them.
func TestServersStandInTheNetworkAndHaveDisks(t *testing.T) {
	for _, c := range []struct {
		quota             string
		per, plane, needs float64
	}{{"Network interfaces per Region (enforced per AZ)", 7, 22, 35022}, {"Network Address Usage per VPC", 7, 112, 35112}, {"Total storage GB (RDS, not Aurora)", 20, 20, 100020}} {
		if l := find(t, table(t, aws.QuotasCSV), 5000, "dedicated", c.quota); l.PerTenant != c.per || l.Plane != c.plane || float64(l.Needed) != c.needs {
			t.Errorf("%+v", l)
		}
	}
	if l := find(t, table(t, aws.QuotasCSV), 40, "account", "Network interfaces per Region (enforced per AZ)"); l.PerTenant != 2 {
		t.Errorf("the way to an account of its own has %v interfaces, one in each zone", l.PerTenant)
	}
}

// Of the plane's account a tenant with one to itself takes the way there: an endpoint beside those that the plane's network has for AWS's services.
func TestTenantInItsOwnAccountTakesAnEndpointOfThePlanesNetwork(t *testing.T) {
	if l := find(t, table(t, aws.QuotasCSV), 100, "account", "Interface and GWLB endpoints per VPC"); l.PerTenant != 1 || l.Plane != 7 || l.Carries != 43 || !l.Met {
		t.Errorf("%+v", l)
	}
	p, err := quota.Make(table(t, aws.QuotasCSV), 1, "account", 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range p.Limits {
		if l.Quota == "DB instances" || l.Quota == "Roles per account" {
			t.Errorf("it takes %v of the plane's %s, which its own account has", l.PerTenant, l.Quota)
		}
	}
}

// A release registers the definition of each component and of the migration, and the migration's once more as what is run to its end, which is launched
// beside the components; rates are an account's.
func TestRolloutCountsEveryCallOfARelease(t *testing.T) {
	for tier, tenants := range map[string]int{"database": 100, "dedicated": 100, "account": 1} {
		p, err := quota.Make(table(t, aws.QuotasCSV), 100, tier, 1)
		if err != nil {
			t.Fatal(err)
		}
		var calls []int
		for _, s := range p.Rollout {
			calls = append(calls, s.Calls)
		}
		if want := []int{7 * tenants, 5 * tenants, 6 * tenants}; !slices.Equal(calls, want) || p.Longest() != time.Duration(7*tenants)*time.Second {
			t.Errorf("tier %s: %v calls and %s, want %v", tier, calls, p.Longest(), want)
		}
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
		if _, err := quota.Make(table(t, c.text), c.tenants, c.tier, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d of %q: %v, want %q", c.tenants, c.tier, err, c.want)
		}
	}
}

func pricesOf(t *testing.T, text string) map[string]aws.Price {
	t.Helper()
	prices, err := aws.ParsePrices("prices.csv", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return prices
}

// What a tenant costs follows from what its template holds and from the table, and from nothing else.
func TestCostIsTheTemplatesCountsAtTheTablesPrices(t *testing.T) {
	costs, err := quota.Price(pricesOf(t, aws.PricesCSV))
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]map[string]float64{}
	for tier, c := range costs.Tenant {
		counts[tier], c.USD = map[string]float64{}, -c.USD
		for _, charge := range c.Charges {
			counts[tier][charge.Item] = charge.Count
			c.USD += charge.USD
			if charge.Source == "" || charge.Date == "" {
				t.Errorf("%s has no source", charge.Item)
			}
		}
		if math.Abs(c.USD) > 0.001 {
			t.Errorf("the charges of tier %s are not its sum", tier)
		}
	}
	// Five components, the migration and what no component holds have a secret, and RDS one for a server's first user; a server has a standby.
	d := counts["dedicated"]
	if d["kms key"] != 1 || d["secret"] != 8 || d["fargate vcpu"] != 7 || d["fargate gb"] != 14 || d["rds db.t4g.medium"] != 2 || d["rds gp3 gb"] != 40 {
		t.Errorf("a dedicated tenant is counted as %v", d)
	}
	// Seven endpoints for AWS's services and one for the registry there, one for the set here, in two zones each.
	if a := counts["account"]; a["interface endpoint"] != 18 || a["load balancer"] != 1 || a["nat gateway"] != 2 || a["hosted zone"] != 3 || a["fargate vcpu"] != 7 {
		t.Errorf("a tenant in an account of its own is counted as %v", a)
	}
	// What leads out of the plane's network has an address in each of two zones, and so has the load balancer that people reach.
	plane := map[string]float64{}
	for _, charge := range costs.Plane.Charges {
		plane[charge.Item] = charge.Count
	}
	if plane["public address"] != 4 || plane["load balancer"] != 1 || counts["account"]["public address"] != 2 {
		t.Errorf("the plane is counted as %v, a tenant's account has %v public addresses", plane, counts["account"]["public address"])
	}
	if b := counts["database"]; b["rds db.t4g.medium"] >= 0.5 || b["rds db.t4g.medium"] <= 0 {
		t.Errorf("a tenant in a shared server takes %v of one", b["rds db.t4g.medium"])
	}
	dearer, err := quota.Price(pricesOf(t, strings.Replace(aws.PricesCSV, "kms key,month,1.00", "kms key,month,11.00", 1)))
	if err != nil || math.Abs(dearer.Tenant["database"].USD-costs.Tenant["database"].USD-10) > 0.001 {
		t.Errorf("a key that costs ten more makes a tenant cost %.2f more, %v", dearer.Tenant["database"].USD-costs.Tenant["database"].USD, err)
	}
	if _, err := quota.Price(pricesOf(t, strings.Replace(aws.PricesCSV, "kms key,", "other key,", 1))); err == nil || !strings.Contains(err.Error(), `no "kms key"`) {
		t.Errorf("a table without a price: %v", err)
	}
}
