// What an application on Relay writes: a page, a list that is paged, a refetch by id, a mutation, a subscription.
import { graphql } from "relay-runtime";

export const page = graphql`
  query classPageQuery($id: ID!) {
    node(id: $id) {
      id
      ...class_roster @alias(as: "roster")
      ...class_header @alias(as: "header")
    }
  }
`;

export const header = graphql`
  fragment class_header on Classroom @refetchable(queryName: "classHeaderRefetchQuery") {
    id
    name
    dashboard {
      completionRate
      averageScore
    }
  }
`;

export const roster = graphql`
  fragment class_roster on Classroom
  @argumentDefinitions(count: { type: "Int", defaultValue: 30 }, cursor: { type: "String" })
  @refetchable(queryName: "classRosterPageQuery") {
    roster(first: $count, after: $cursor) @connection(key: "class_roster") {
      edges {
        node {
          role
          personId
          displayName
        }
      }
    }
  }
`;

export const record = graphql`
  mutation classRecordMutation($input: RecordEventInput!) {
    recordEvent(input: $input) {
      status
      seq
      errors {
        code
        field
        message
      }
    }
  }
`;

export const flags = graphql`
  subscription classFlagsSubscription($classroom: ID!, $after: String) {
    riskFlagChanged(classroomId: $classroom, after: $after) {
      kind
      resumeToken
      transition {
        change
        student {
          id
          ...class_name
        }
      }
    }
  }
`;

export const name = graphql`
  fragment class_name on Student @refetchable(queryName: "classNameRefetchQuery") {
    displayName
  }
`;
