package quota_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"a3os.app/deploy/aws"
	"a3os.app/tools/fleet/internal/quota"
)

// account answers as Service Quotas does (JSON 1.1; ServiceQuotasV20190624), for an account with some quotas raised. It is no AWS and no
// emulator of it: it shows that the right things are asked for and the answers are understood, not that AWS answers so.
type account struct {
	mu       sync.Mutex
	applied  map[string]float64
	standard map[string]float64
	// throttle is how many requests are refused first.
	throttle int
	regions  map[string]string
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	fail := func(status int, kind string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": kind, "Message": "no"})
	}
	// Credential=<key>/<day>/<Region>/servicequotas/aws4_request
	scope := strings.Split(r.Header.Get("Authorization"), "/")
	if len(scope) < 4 || scope[3] != "servicequotas" {
		fail(http.StatusForbidden, "AccessDeniedException")
		return
	}
	if a.throttle > 0 {
		a.throttle--
		fail(http.StatusBadRequest, "TooManyRequestsException")
		return
	}
	var in struct{ ServiceCode, QuotaCode string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		fail(http.StatusBadRequest, "SerializationException")
		return
	}
	a.regions[in.ServiceCode] = scope[2]
	values := a.applied
	if r.Header.Get("X-Amz-Target") == "ServiceQuotasV20190624.GetAWSDefaultServiceQuota" {
		values = a.standard
	}
	v, ok := values[in.ServiceCode+"/"+in.QuotaCode]
	if !ok {
		fail(http.StatusBadRequest, "NoSuchResourceException")
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"Quota": map[string]any{"ServiceCode": in.ServiceCode, "QuotaCode": in.QuotaCode, "Value": v}})
}

func check(t *testing.T, a *account) (map[string]quota.Answer, error) {
	t.Helper()
	a.regions = map[string]string{}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	p, err := quota.Make(table(t, aws.QuotasCSV), 100, "dedicated", 1)
	if err != nil {
		t.Fatal(err)
	}
	cfg := sdk.Config{Region: "eu-central-1", BaseEndpoint: sdk.String(server.URL), Credentials: credentials.NewStaticCredentialsProvider("ASIATEST", "secret", "token")}
	answers, err := p.Check(t.Context(), cfg)
	out := map[string]quota.Answer{}
	for _, answer := range answers {
		out[answer.Quota] = answer
	}
	return out, err
}

func TestCheckHoldsThePlanAgainstWhatTheAccountHas(t *testing.T) {
	a := &account{applied: map[string]float64{"fargate/L-3032A538": 10_000, "rds/L-7B6409FD": 40}, standard: map[string]float64{"AWSCloudMap/L-0FE3F50E": 50}, throttle: 2}
	answers, err := check(t, a)
	if err != nil {
		t.Fatal(err)
	}
	if v := answers["Fargate On-Demand vCPU resource count"]; !v.Asked || v.Granted != 10_000 || !v.Enough || !v.Met {
		t.Errorf("a quota that was raised: %+v", v)
	}
	if v := answers["DB instances"]; !v.Asked || v.Enough || v.CarriesGranted != 39 {
		t.Errorf("a quota that was not: %+v", v)
	}
	if v := answers["Namespaces per Region"]; !v.Asked || v.Granted != 50 || v.Enough {
		t.Errorf("a default that was told: %+v", v)
	}
	// ECS has no code for it, and of roles Service Quotas knew nothing: both are held against the table.
	for _, name := range []string{"Services per cluster", "Roles per account"} {
		if v := answers[name]; v.Asked || v.Enough == v.Met || v.CarriesGranted != v.Carries {
			t.Errorf("%s that nobody could be asked for: %+v", name, v)
		}
	}
	if a.regions["iam"] != "us-east-1" || a.regions["rds"] != "eu-central-1" {
		t.Errorf("services were asked in %v", a.regions)
	}
}

func TestCheckThatIsRefusedSaysWhat(t *testing.T) {
	a := &account{throttle: 1000}
	if _, err := check(t, a); err == nil || !strings.Contains(err.Error(), "ask Service Quotas for L-") {
		t.Errorf("%v", err)
	}
}
