package session_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
)

// Row F28, of the platform's calls: CloudFormation, ECS and Secrets Manager throttle four calls in a row, by each of the answers that AWS has for
// it. A stack is made and changed all the same, a secret written, a service looked at, and what is waited for is said; the SDK by itself gives up.
func TestThrottlingIsWaitedForAndSaid(t *testing.T) {
	server := ministacktest.Start(t)
	deeds := func(cfg sdk.Config) (errs []error) {
		d, err := changeset.Open(t.Context(), cfg, awstest.Where, "")
		if err != nil {
			return []error{err}
		}
		for _, also := range []string{"", `,"Topic":{"Type":"AWS::SNS::Topic"}`} {
			p, err := d.Make(t.Context(), "small", []byte(`{"Resources":{"Queue":{"Type":"AWS::SQS::Queue"}`+also+`}}`), nil)
			if err == nil {
				err = d.Execute(t.Context(), p)
			}
			errs = append(errs, err)
		}
		secrets := secretsmanager.NewFromConfig(cfg)
		_, err = secrets.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: sdk.String("x"), SecretString: sdk.String("x")})
		errs = append(errs, err)
		for range 6 {
			_, err = secrets.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: sdk.String("x"), SecretString: sdk.String("y")})
			_, listErr := ecs.NewFromConfig(cfg).ListClusters(t.Context(), &ecs.ListClustersInput{})
			errs = append(errs, err, listErr)
		}
		return errs
	}
	var mu sync.Mutex
	var said []string
	busy := awstest.Throttle(t, server)
	for _, err := range deeds(session.Patient(busy.Server.Root(), func(text string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, text)
	})) {
		if err != nil {
			t.Error(err)
		}
	}
	if text := strings.Join(said, "\n"); !strings.Contains(text, "AWS is asked too often") || !strings.Contains(text, "Rate exceeded") {
		t.Errorf("it is said %q", text)
	}
	t.Attr("row", fmt.Sprint("F28 ", busy.Refusals(t)))

	impatient, failed := secretsmanager.NewFromConfig(awstest.Throttle(t, server).Server.Root()), 0
	for range 6 {
		if _, err := impatient.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: sdk.String("x")}); err != nil && strings.Contains(err.Error(), "Rate exceeded") {
			failed++
		}
	}
	if failed == 0 {
		t.Error("without patience no call fails: this test shows nothing")
	}
	if _, err := secretsmanager.NewFromConfig(session.Patient(server.Root(), nil)).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: sdk.String("nobody's")}); err == nil {
		t.Error("what isn't there is found")
	}
}
