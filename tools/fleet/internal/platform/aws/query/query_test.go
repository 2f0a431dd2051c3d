package query_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"

	"a3os.app/tools/fleet/internal/platform/aws/query"
)

// A double of EC2, of which the emulator answers one page: all pages are read, one that EC2 is away for is asked for again, and a group without the tag is none,
// whatever the filter let through.
func TestGroupsOfAllPagesAreFound(t *testing.T) {
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if err := r.ParseForm(); err != nil || r.Form.Get("Filter.1.Name") != "tag:tenant" || r.Form.Get("Filter.1.Value.1") != "tnt_1" || !strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/ec2/aws4_request") {
			t.Errorf("it is asked for %v with %v: %v", r.Form, r.Header, err)
		}
		group := func(id, tenant string) string {
			return "<item><groupId>" + id + "</groupId><groupName>of " + id + "</groupName><tagSet><item><key>tenant</key><value>" + tenant + "</value></item></tagSet></item>"
		}
		const whole = `<DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><securityGroupInfo>%s</securityGroupInfo>%s</DescribeSecurityGroupsResponse>`
		switch {
		case r.Form.Get("NextToken") == "2":
			fmt.Fprintf(w, whole, group("sg-3", "tnt_1"), "")
		case calls == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, whole, group("sg-1", "tnt_1")+group("sg-2", "tnt_10"), "<nextToken>2</nextToken>")
		}
	}))
	t.Cleanup(server.Close)
	got, err := query.Groups(t.Context(), at(server.URL), "tenant", "tnt_1")
	if err != nil || len(got) != 2 || got[0].ID != "sg-1" || got[1].ID != "sg-3" || got[1].Name != "of sg-3" || calls != 3 {
		t.Errorf("after %d calls: %v, %v", calls, got, err)
	}
}

func TestWhatEC2RefusesIsSaidWithItsCode(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`)
	}))
	t.Cleanup(server.Close)
	_, err := query.Groups(t.Context(), at(server.URL), "tenant", "tnt_1")
	if api, is := errors.AsType[smithy.APIError](err); !is || api.ErrorCode() != "UnauthorizedOperation" || api.ErrorMessage() != "no" {
		t.Errorf("%v", err)
	}
}

// As CloudWatch answers.
func TestAlarmsOfAllPagesAreFound(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const whole = `<DescribeAlarmsResponse xmlns="http://monitoring.amazonaws.com/doc/2010-08-01/"><DescribeAlarmsResult><MetricAlarms><member><AlarmName>tnt_1-%s</AlarmName></member><member><AlarmName>tnt_10-x</AlarmName></member></MetricAlarms>` +
			`<CompositeAlarms><member><AlarmName>tnt_1-all%s</AlarmName></member></CompositeAlarms>%s</DescribeAlarmsResult></DescribeAlarmsResponse>`
		if err := r.ParseForm(); err != nil || r.Form.Get("AlarmNamePrefix") != "tnt_1-" || r.Form.Get("Version") != "2010-08-01" {
			t.Errorf("it is asked for %v: %v", r.Form, err)
		}
		if r.Form.Get("NextToken") == "2" {
			fmt.Fprintf(w, whole, "b", "b", "")
			return
		}
		fmt.Fprintf(w, whole, "a", "a", "<NextToken>2</NextToken>")
	}))
	t.Cleanup(server.Close)
	got, err := query.Alarms(t.Context(), at(server.URL), "tnt_1-")
	if err != nil || strings.Join(got, " ") != "tnt_1-a tnt_1-alla tnt_1-b tnt_1-allb" {
		t.Errorf("%q, %v", got, err)
	}
}

func at(url string) aws.Config {
	return aws.Config{Region: "eu-central-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("ASIAEXAMPLE", "secret", "token")}
}
