package stack

import (
	"fmt"

	"github.com/awslabs/goformation/v7/cloudformation/certificatemanager"
	"github.com/awslabs/goformation/v7/cloudformation/cloudwatch"
	"github.com/awslabs/goformation/v7/cloudformation/ec2"
	"github.com/awslabs/goformation/v7/cloudformation/ecs"
	elb "github.com/awslabs/goformation/v7/cloudformation/elasticloadbalancingv2"
	"github.com/awslabs/goformation/v7/cloudformation/sns"

	"a3os.app/deploy/blueprint"
)

// Plane renders the stack that all tenants' and the plane's own set stand on: the network, the database server of tier `database`, the front
// door, what lasts of the plane's set, and the roles that bound everybody. No release of the product is in it: administrators deploy it. What comes
// first of it is small enough for a call, and has the bucket that the rest is read from.
func Plane(in Input) (*Template, error) {
	if err := in.ofThePlane(); err != nil {
		return nil, err
	}
	if err := in.checkPlace(); err != nil {
		return nil, err
	}
	s := newSet(in)
	s.dedicated = true
	s.Description = "Plane " + s.place.Plane
	s.foundation()
	if in.First {
		return s.Template, nil
	}
	s.ground()
	s.doors()
	s.network()
	s.database()
	s.exports(clientsID, s.own(clientsID))
	s.frontDoor()
	s.offersRegistry(in.Accounts, in.Unoffered)
	s.lasting()
	s.copyStore()
	s.alarms()
	s.exportsLasting()
	return s.Template, s.finally(databaseID, loadBalancerID)
}

func (in Input) ofThePlane() error {
	if !in.Set.Tenant.IsZero() || in.Set.Blueprint.Scope != blueprint.ScopePlane {
		return fmt.Errorf("blueprint %s with tenant %q is not the plane's: name neither a tenant nor a tenant's blueprint", in.Set.Blueprint.Name, in.Set.Tenant)
	}
	return nil
}

// DomainOutput is the domain that the plane's stack has the certificate of.
const DomainOutput = "Domain"

const (
	topicID        = "Alarms"
	balancerID     = "Balancer"
	loadBalancerID = "LoadBalancer"
	targetsID      = "Targets"
)

// Attributes of load balancers and of what they send to.
const (
	crossZone       = "load_balancing.cross_zone.enabled"
	clientAddresses = "preserve_client_ip.enabled"
)

// frontDoor is the one place that the internet reaches: a load balancer that ends TLS with the certificate of all tenants' names and speaks TLS
// to the gateway. The gateway sees clients' own addresses, by which it gives turns and which the record of a set names, and lets in nobody but
// through the balancer all the same, for its group names the balancer's, which holds whatever address a packet comes from.
// https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-security-groups.html
// No task that is behind it may be its client, then: neither is. A gateway in one zone serves who comes by the other one.
func (s *set) frontDoor() {
	certificate := s.add("Certificate", &certificatemanager.Certificate{DomainName: s.place.Domain, SubjectAlternativeNames: []string{"*." + s.place.Domain}, ValidationMethod: new("DNS"), Tags: s.tags()})
	s.add(balancerID, &ec2.SecurityGroup{GroupDescription: "The load balancer", VpcId: new(s.vpc()), Tags: s.tags(),
		SecurityGroupIngress: []ec2.SecurityGroup_Ingress{{IpProtocol: tcp, FromPort: new(https), ToPort: new(https), CidrIp: new(anywhere), Description: new("Everybody")}},
		SecurityGroupEgress:  []ec2.SecurityGroup_Egress{{IpProtocol: tcp, FromPort: new(s.api()), ToPort: new(s.api()), CidrIp: new(network), Description: new("The gateway")}}})
	balancer := s.add(loadBalancerID, &elb.LoadBalancer{Name: new(s.place.cluster()), Type: new("network"), Scheme: new("internet-facing"), SecurityGroups: []string{ref(balancerID)},
		Subnets: []string{ref("PublicSubnetA"), ref("PublicSubnetB")}, Tags: s.tags(),
		LoadBalancerAttributes: []elb.LoadBalancer_LoadBalancerAttribute{{Key: new("deletion_protection.enabled"), Value: new("true")}, {Key: new(crossZone), Value: new("true")}}})
	targets := s.add(targetsID, &elb.TargetGroup{Name: new(s.place.cluster() + "-gateway"), TargetType: new("ip"), Protocol: new("TLS"), Port: new(s.api()), VpcId: new(s.vpc()), Tags: s.tags(),
		HealthCheckProtocol:   new("TCP"),
		TargetGroupAttributes: []elb.TargetGroup_TargetGroupAttribute{{Key: new("deregistration_delay.timeout_seconds"), Value: new("30")}, {Key: new(clientAddresses), Value: new("true")}}})
	s.add("Listener", &elb.Listener{LoadBalancerArn: ref(balancer), Port: new(https), Protocol: new("TLS"), SslPolicy: new("ELBSecurityPolicy-TLS13-1-2-2021-06"), AlpnPolicy: []string{"HTTP2Preferred"},
		Certificates: []elb.Listener_Certificate{{CertificateArn: new(ref(certificate))}}, DefaultActions: []elb.Listener_Action{{Type: "forward", TargetGroupArn: new(ref(targets))}}})
	s.Outputs[DomainOutput] = Output{Description: "Below which tenants have their hosts: A3_DOMAIN", Value: s.place.Domain}
	s.Outputs["Address"] = Output{Description: "Where the names of all tenants have to lead", Value: attribute(balancer, "DNSName")}
}

// behindTheBalancer has the load balancer send to a service.
func (s *set) behindTheBalancer(c blueprint.Component, service *ecs.Service) {
	service.LoadBalancers = []ecs.Service_LoadBalancer{{ContainerName: new(c.Name), ContainerPort: new(s.api()), TargetGroupArn: new(s.held(targetsID))}}
}

// alarms are what wakes somebody up where the plane itself can't say it any more; what it says of itself is in deploy/observability.
func (s *set) alarms() {
	s.topic()
	// Each task of a service gives its processor's figure once a minute, and none does where none runs.
	// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cw_running_task_count.html
	for _, c := range s.blueprint.Components {
		s.alarm(logical(c.Name, "down"), cloudwatch.Alarm{AlarmDescription: new("No task of " + c.Name + " runs: see what ECS says of its last one"), Namespace: new("AWS/ECS"),
			MetricName: new("CPUUtilization"), Dimensions: []cloudwatch.Alarm_Dimension{{Name: "ClusterName", Value: s.place.cluster()}, {Name: "ServiceName", Value: s.called(c.Name)}},
			ComparisonOperator: "LessThanThreshold", Threshold: new(1.0), Statistic: new("SampleCount"), Period: new(60), EvaluationPeriods: 3, TreatMissingData: new("breaching")})
	}
}

// fullDatabase says that a server's disk is almost full: it grows by itself, and not without end.
func (s *set) fullDatabase() {
	const tenth = storageGiB << 30 / 10
	s.alarm("DatabaseFull", cloudwatch.Alarm{AlarmDescription: new("The database server of " + s.name() + " has less than a tenth of its first disk free"), Namespace: new("AWS/RDS"), MetricName: new("FreeStorageSpace"),
		Dimensions: []cloudwatch.Alarm_Dimension{{Name: "DBInstanceIdentifier", Value: ref(databaseID)}}, ComparisonOperator: "LessThanThreshold", Threshold: new(float64(tenth)), Statistic: new("Minimum"),
		Period: new(300), EvaluationPeriods: 2, TreatMissingData: new("missing")})
}

// deepQueue says that messages could not be handled.
func (s *set) deepQueue(queue string) {
	s.alarm("DeadLettersWait", cloudwatch.Alarm{AlarmDescription: new("Messages of " + s.name() + " could not be handled: see the dead letters"), Namespace: new("AWS/SQS"),
		MetricName: new("ApproximateNumberOfMessagesVisible"), Dimensions: []cloudwatch.Alarm_Dimension{{Name: "QueueName", Value: attribute(queue, "QueueName")}},
		ComparisonOperator: "GreaterThanThreshold", Threshold: new(0.0), Statistic: new("Maximum"), Period: new(300), EvaluationPeriods: 1, TreatMissingData: new("notBreaching")})
}

func (s *set) alarm(id string, a cloudwatch.Alarm) {
	a.AlarmName, a.Tags, a.AlarmActions = new(s.called(id)), s.tags(), s.alarmed()
	s.add(id, &a)
}

// topic is where alarms of what stands on the ground go. It is the ground's own, and who hears it subscribes to it: CloudFormation changes no value that
// another stack imports, so that one which was given could never be another once there is a tenant.
func (s *set) topic() {
	s.exports(topicID, ref(s.add(topicID, &sns.Topic{TopicName: new(s.place.cluster() + "-alarms"), Tags: s.tags()})))
}

// alarmed are who is told of alarms: the topic of the ground that the set stands on.
func (s *set) alarmed() []string {
	if s.tenant == "" {
		return []string{ref(topicID)}
	}
	return []string{s.place.imported(topicID)}
}
